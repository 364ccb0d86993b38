# A static program on an empty base: docker build --build-arg ONCEGATE_COMMIT=$(git rev-parse --short=12 HEAD) -t oncegate .
# Another base, such as one with a shell: --build-arg BASE=debian:bookworm-slim
ARG RUST_VERSION=1.95
ARG BASE=scratch

FROM rust:${RUST_VERSION}-slim-bookworm AS build
WORKDIR /build
# Static, so that the base may be empty. The target is named, so that the flag is not for build scripts and macros as well.
ENV RUSTFLAGS="-C target-feature=+crt-static"
RUN rustc -vV | sed -n 's/^host: //p' > /target \
    && apt-get update && apt-get install -y --no-install-recommends ca-certificates \
    && install -d -m 0700 /var/lib/oncegate
# The dependencies have a layer of their own, which stays while only the program changes.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked --bin oncegate --target "$(cat /target)"
COPY config config
COPY src src
ARG ONCEGATE_COMMIT=
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin oncegate --target "$(cat /target)" \
    && strip -o /oncegate "target/$(cat /target)/release/oncegate"

FROM ${BASE}
ARG ONCEGATE_COMMIT=
LABEL org.opencontainers.image.title="oncegate" \
      org.opencontainers.image.description="A reverse proxy that makes existing HTTP APIs safe to retry" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${ONCEGATE_COMMIT}"
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build --chown=10001:10001 /var/lib/oncegate /var/lib/oncegate
COPY --from=build /oncegate /usr/local/bin/oncegate
# Any other user will do, where the volume is its own; the root of the file system may be read-only.
USER 10001:10001
# No VOLUME: an anonymous volume would give each new container an empty store, in which no used key
# is known. Mount a named one at /var/lib/oncegate; see docs/deploy.md.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/usr/local/bin/oncegate", "health", "--config", "/etc/oncegate/oncegate.toml"]
ENTRYPOINT ["/usr/local/bin/oncegate"]
CMD ["run", "--config", "/etc/oncegate/oncegate.toml"]
