# Built here, with a compiler, and with the servers of the load that guides the build (see .ci/release).
ARG RUST_VERSION=1.95
FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build
RUN apt-get update \
    && apt-get install -y --no-install-recommends postgresql redis-server \
    && rm -rf /var/lib/apt/lists/*
COPY Cargo.toml Cargo.lock ./
COPY config config
COPY src src
COPY bench bench
COPY .ci/release .ci/release
RUN .ci/release --out /usr/local/bin/oncegate

# Run here, without one.
FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && groupadd --system --gid 10001 oncegate \
    && useradd --system --uid 10001 --gid oncegate --no-create-home --shell /usr/sbin/nologin oncegate \
    && install -d -o oncegate -g oncegate -m 0700 /var/lib/oncegate
COPY --from=build /usr/local/bin/oncegate /usr/local/bin/oncegate
USER 10001:10001
# No VOLUME: an anonymous volume would give each new container an empty store, in which no used key
# is known. Mount a named one at /var/lib/oncegate; see docs/deploy.md.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["oncegate", "health", "--config", "/etc/oncegate/oncegate.toml"]
ENTRYPOINT ["oncegate"]
CMD ["run", "--config", "/etc/oncegate/oncegate.toml"]
