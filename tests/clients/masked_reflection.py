"""SQLAlchemy's reflection and an ORM's round trip: masks change nothing of what is not masked."""

from sqlalchemy import MetaData, create_engine, inspect, select
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from transcript import section, show


class Base(DeclarativeBase):
    pass


class Thing(Base):
    __tablename__ = "things"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def main() -> None:
    engine = create_engine("postgresql+psycopg://")
    section("reflection")
    looker = inspect(engine)
    for table in looker.get_table_names():
        show(table, [(c["name"], str(c["type"]), c["nullable"]) for c in looker.get_columns(table)])
        show("keys", (looker.get_pk_constraint(table), looker.get_foreign_keys(table)))
        show("indexes", looker.get_indexes(table))
    for view in looker.get_view_names():
        show(view, looker.get_view_definition(view))
    metadata = MetaData()
    metadata.reflect(engine)
    show("tables", sorted(metadata.tables))
    section("round trip")
    Base.metadata.drop_all(engine)
    Base.metadata.create_all(engine)
    with Session(engine) as session:
        session.add_all([Thing(name="one"), Thing(name="two")])
        session.commit()
        found = session.scalars(select(Thing).where(Thing.name == "two")).one()
        found.name = "three"
        session.commit()
        show("names", [thing.name for thing in session.scalars(select(Thing).order_by(Thing.id))])
    customers = metadata.tables["customers"]
    with engine.connect() as connection:
        show("harmless", [tuple(row) for row in connection.execute(
            select(customers.c.id, customers.c.name).where(customers.c.email.like("%@example.com")).order_by(customers.c.id)
        )])
    Base.metadata.drop_all(engine)


main()
