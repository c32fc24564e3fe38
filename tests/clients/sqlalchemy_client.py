"""SQLAlchemy: the ORM over psycopg, reflection, a pool, and the asynchronous engine over asyncpg."""

import asyncio
import os
from datetime import date
from decimal import Decimal

from sqlalchemy import ForeignKey, MetaData, create_engine, exc, func, inspect, select, text
from sqlalchemy.engine import URL
from sqlalchemy.dialects.postgresql import ARRAY, JSONB, insert
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column, relationship
from sqlalchemy.types import Numeric, Text

from transcript import section, show

SCHEMA = "clients_sqlalchemy"


class Base(DeclarativeBase):
    metadata = MetaData(schema=SCHEMA)


class Customer(Base):
    __tablename__ = "customers"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(Text, unique=True)
    joined: Mapped[date | None]
    tags: Mapped[list[str]] = mapped_column(ARRAY(Text), default=list)
    detail: Mapped[dict | None] = mapped_column(JSONB)
    orders: Mapped[list["Order"]] = relationship(back_populates="customer", cascade="all")


class Order(Base):
    __tablename__ = "orders"
    id: Mapped[int] = mapped_column(primary_key=True)
    customer_id: Mapped[int] = mapped_column(ForeignKey(Customer.id))
    total: Mapped[Decimal] = mapped_column(Numeric(10, 2))
    customer: Mapped[Customer] = relationship(back_populates="orders")


def main() -> None:
    # All but the driver comes from libpq's environment.
    engine = create_engine("postgresql+psycopg://", pool_size=3, pool_pre_ping=True)
    with engine.begin() as connection:
        connection.execute(text(f"drop schema if exists {SCHEMA} cascade"))
        connection.execute(text(f"create schema {SCHEMA}"))
    Base.metadata.create_all(engine)
    writing(engine)
    reading(engine)
    failing(engine)
    reflection(engine)
    asyncio.run(asynchronously())
    with engine.begin() as connection:
        connection.execute(text(f"drop schema {SCHEMA} cascade"))
    engine.dispose()


def writing(engine) -> None:
    section("create, update, delete")
    with Session(engine) as session:
        for n in range(200):
            session.add(
                Customer(
                    name=f"customer {n} ünï",
                    joined=date(2024, 1, 1 + n % 28),
                    tags=["a", f"t{n}"],
                    detail={"n": n},
                    orders=[Order(total=Decimal(n * k) / 100) for k in range(n % 5)],
                )
            )
        session.commit()
        first = session.scalars(select(Customer).order_by(Customer.id)).first()
        first.detail = {"changed": True}
        session.delete(session.get(Customer, 5))
        with session.begin_nested() as savepoint:
            session.add(Customer(name="undone"))
            session.flush()
            savepoint.rollback()
        session.commit()
    with engine.begin() as connection:
        upsert = insert(Customer).values(name="customer 0 ünï", tags=[]).on_conflict_do_update(
            index_elements=["name"], set_={"joined": date(1999, 9, 9)}
        )
        show("upsert", connection.execute(upsert.returning(Customer.id, Customer.joined)).all())


def reading(engine) -> None:
    section("queries")
    with Session(engine) as session:
        query = (
            select(Customer.name, func.count(Order.id), func.sum(Order.total))
            .join(Order, isouter=True)
            .group_by(Customer.id)
            .order_by(Customer.id)
            .limit(10)
        )
        show("grouped", [tuple(r) for r in session.execute(query)])
        loaded = session.scalars(select(Customer).order_by(Customer.id).limit(10)).all()
        show("lazy", [len(c.orders) for c in loaded])
        show("detail", [c.detail for c in loaded[:3]])
        streamed = session.execute(
            select(Order.total).order_by(Order.id), execution_options={"yield_per": 50}
        )
        show("streamed", sum(total for (total,) in streamed))


def failing(engine) -> None:
    section("failures")
    with Session(engine) as session:
        session.add(Customer(name="customer 0 ünï"))
        try:
            session.commit()
        except exc.IntegrityError as error:
            show("integrity", (error.orig.sqlstate, error.orig.diag.constraint_name))
        session.rollback()
        show("after", session.scalar(select(func.count()).select_from(Customer)))


def reflection(engine) -> None:
    section("reflection")
    inspector = inspect(engine)
    for table in sorted(inspector.get_table_names(schema=SCHEMA)):
        columns = inspector.get_columns(table, schema=SCHEMA)
        show(table, [(c["name"], str(c["type"]), c["nullable"], c["default"]) for c in columns])
        show("keys", (
            inspector.get_pk_constraint(table, schema=SCHEMA)["constrained_columns"],
            inspector.get_foreign_keys(table, schema=SCHEMA),
            inspector.get_unique_constraints(table, schema=SCHEMA),
        ))
    reflected = MetaData()
    reflected.reflect(engine, schema=SCHEMA)
    show("tables", sorted(reflected.tables))


async def asynchronously() -> None:
    section("the asynchronous engine")
    url = URL.create("postgresql+asyncpg", database=os.environ["PGDATABASE"])
    engine = create_async_engine(url)
    async with engine.begin() as connection:
        result = await connection.execute(select(func.count()).select_from(Order))
        show("orders", result.scalar_one())
    async with engine.connect() as connection:
        rows = [r async for r in await connection.stream(select(Order.total).order_by(Order.id))]
        show("streamed", len(rows))
    await engine.dispose()


main()
