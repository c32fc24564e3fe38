# The gateway's image: `docker build -t portcullis .`, or `docker compose up` for a whole demonstration.
# docs/deployment.md tells how to run it.
#
# Base images can be given: --build-arg RUST_IMAGE=… --build-arg DEBIAN_IMAGE=….

ARG RUST_IMAGE=rust:1-slim-bookworm
ARG DEBIAN_IMAGE=debian:bookworm-slim

FROM ${RUST_IMAGE} AS build
# libclang reads the headers of PostgreSQL's parser.
RUN apt-get update \
 && apt-get install -y --no-install-recommends gcc libc6-dev libclang-dev \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/*
WORKDIR /build
# Dependencies first, behind a crate that is empty: this layer is made anew only when they change.
COPY Cargo.toml Cargo.lock ./
COPY .cargo .cargo
COPY fuzz/Cargo.toml fuzz/
RUN mkdir src benches \
 && touch src/lib.rs benches/cost.rs benches/decode_sql.rs benches/policy.rs benches/recording.rs \
 && echo 'fn main() {}' >src/main.rs \
 && cargo build --release --locked --bin portcullis
COPY askama.toml ./
COPY config config
COPY migrations migrations
COPY src src
# Files keep their times, which may be older than the empty crate's.
RUN touch src/lib.rs src/main.rs && cargo build --release --locked --bin portcullis

FROM ${DEBIAN_IMAGE}
# The authorities that issuers' and targets' certificates are checked against.
RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates \
 && rm -rf /var/lib/apt/lists/* /var/cache/apt/* \
 && useradd --system --uid 10001 --user-group --no-create-home --shell /usr/sbin/nologin portcullis \
 && install -d -o portcullis -g portcullis -m 0700 /var/lib/portcullis \
 && install -d /etc/portcullis
COPY --from=build /build/target/release/portcullis /usr/local/bin/
COPY deploy/docker/portcullis-ready /usr/local/bin/
USER 10001:10001
# All that it writes; everything else may be read-only.
VOLUME /var/lib/portcullis
# Postgres, SSH, HTTP, pages and API, Prometheus.
EXPOSE 6432 2222 8080 8443 9464
HEALTHCHECK --interval=5s --timeout=3s --start-period=60s --retries=3 CMD ["portcullis-ready"]
ENTRYPOINT ["portcullis"]
CMD ["serve"]
