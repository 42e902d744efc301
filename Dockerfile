# Builds the gateway and puts it, alone, into an image that runs as nobody on a read-only root:
#
#   docker build -t image-share-gateway .
#   docker run --read-only --cap-drop ALL -p 8080:8080 -v isg-data:/data \
#     -v ./gateway.toml:/etc/image-share-gateway.toml:ro -v ./secrets:/run/secrets:ro image-share-gateway

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
# 65532: a user that owns nothing but the trail.
COPY --from=build --chown=65532:65532 /empty /data
USER 65532:65532
WORKDIR /data
VOLUME /data
ENV ISG__SERVER__BIND=0.0.0.0:8080 \
    ISG__SERVER__ADMIN_BIND=0.0.0.0:9090 \
    ISG__AUDIT__DATABASE_URL=sqlite:///data/audit.db
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s \
    CMD ["image-share-gateway", "healthcheck", "--url", "http://127.0.0.1:9090"]
ENTRYPOINT ["image-share-gateway"]
CMD ["serve", "--config", "/etc/image-share-gateway.toml"]
