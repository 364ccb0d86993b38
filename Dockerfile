# A static program on an empty base: docker build --build-arg ONCEGATE_COMMIT=$(git rev-parse --short=12 HEAD) -t oncegate .
# Another base, such as one with a shell: --build-arg BASE=debian:bookworm-slim
# Another image to build in, with a Rust toolchain and Debian's packages: --build-arg BUILDER=registry.internal/rust:1.95
ARG RUST_VERSION=1.95
ARG BUILDER=docker.io/library/rust:${RUST_VERSION}-slim-bookworm
ARG BASE=scratch

FROM ${BUILDER} AS build
WORKDIR /build
# Static, with musl, so that the base may be empty; musl-gcc compiles the parts in C.
RUN echo "$(uname -m)-unknown-linux-musl" > /target \
    && rustup target add "$(cat /target)" \
    && apt-get update && apt-get install -y --no-install-recommends ca-certificates musl-tools
ENV CARGO_PROFILE_RELEASE_STRIP=symbols
# The dependencies have a layer of their own, which stays while only the program changes.
COPY Cargo.toml Cargo.lock build.rs ./
RUN mkdir src && echo 'fn main() {}' > src/main.rs && touch src/lib.rs \
    && cargo build --release --locked --bin oncegate --target "$(cat /target)"
COPY config config
COPY src src
ARG ONCEGATE_COMMIT=
RUN touch src/main.rs src/lib.rs \
    && cargo build --release --locked --bin oncegate --target "$(cat /target)" \
    && cp "target/$(cat /target)/release/oncegate" /oncegate
# What the image holds. The store's directory is its user's alone, its parents are not.
RUN mkdir -p /image/etc/ssl/certs /image/usr/local/bin /image/var/lib/oncegate \
    && cp /etc/ssl/certs/ca-certificates.crt /image/etc/ssl/certs/ \
    && cp /oncegate /image/usr/local/bin/ \
    && chown 10001:10001 /image/var/lib/oncegate && chmod 0700 /image/var/lib/oncegate

FROM ${BASE}
ARG ONCEGATE_COMMIT=
LABEL org.opencontainers.image.title="oncegate" \
      org.opencontainers.image.description="A reverse proxy that makes existing HTTP APIs safe to retry" \
      org.opencontainers.image.version="0.1.0" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.revision="${ONCEGATE_COMMIT}"
COPY --from=build /image /
# Any other user will do, where the volume is its own; the root of the file system may be read-only.
USER 10001:10001
# No VOLUME: an anonymous volume would give each new container an empty store, in which no used key
# is known. Mount a named one at /var/lib/oncegate; see docs/deploy.md.
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s \
    CMD ["/usr/local/bin/oncegate", "health", "--config", "/etc/oncegate/oncegate.toml"]
ENTRYPOINT ["/usr/local/bin/oncegate"]
CMD ["run", "--config", "/etc/oncegate/oncegate.toml"]
