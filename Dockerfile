# Builds the gateway and puts it, alone, into an image that runs as nobody on a read-only root:
#
#   docker build -t image-share-gateway .
#   docker run --read-only --cap-drop ALL -p 8080:8080 -v isg-data:/data -v ./secrets:/run/secrets:ro \
#     -e ISG__AUTH__ISSUER=… image-share-gateway
#
# A file that is mounted at /etc/image-share-gateway.toml takes the place of the one inside (deploy/docker): it has to
# say where the gateway listens, which by default is loopback alone.

FROM rust:1.95-slim-bookworm AS build
# aws-lc-sys and SQLite are C; nothing else is needed to build.
RUN apt-get update && apt-get install -y --no-install-recommends gcc libc6-dev && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Dependencies change seldom: built over empty targets, they stay in a layer of their own.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches/identity benches/load benches/trail \
    && echo 'fn main() {}' | tee src/main.rs tests/it/main.rs benches/identity/main.rs benches/load/main.rs benches/trail/main.rs > /dev/null \
    && touch src/lib.rs \
    && cargo build --locked --profile dist \
    && rm -rf src
COPY build.rs build.rs
COPY migrations migrations
COPY src src
# The copied files may be older than the empty ones that were built.
RUN find src -name '*.rs' -exec touch {} + && cargo build --locked --profile dist \
    && mkdir /empty

FROM debian:bookworm-slim
RUN apt-get update && apt-get install -y --no-install-recommends ca-certificates && rm -rf /var/lib/apt/lists/*
COPY --from=build /build/target/dist/image-share-gateway /usr/local/bin/image-share-gateway
# What is said here and not in the environment, which would beat a file that is mounted in its place.
COPY deploy/docker/image-share-gateway.toml /etc/image-share-gateway.toml
# Any user of group 0 may run it, as platforms do that give each project users of its own; 65532 owns nothing but the trail.
COPY --from=build --chown=65532:0 --chmod=0770 /empty /data
USER 65532:0
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s \
    CMD ["image-share-gateway", "healthcheck", "--config", "/etc/image-share-gateway.toml"]
ENTRYPOINT ["image-share-gateway"]
CMD ["serve", "--config", "/etc/image-share-gateway.toml"]
