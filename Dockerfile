# Builds the gateway and puts it, without a shell or anything else, into an image that runs as any user on a read-only root:
#
#   docker build -t image-share-gateway --build-arg REVISION=$(git rev-parse HEAD) .
#   docker run --read-only --cap-drop ALL --stop-timeout 60 -p 8080:8080 -v isg-data:/data -v ./secrets:/run/secrets:ro \
#     -v ./gateway.toml:/etc/image-share-gateway.toml:ro image-share-gateway
#
# --stop-timeout is more than server.drain_delay and server.shutdown_timeout together: `docker stop` kills after 10 s else.
# The file that is mounted takes the place of the one inside (deploy/docker), and nothing that the image sets beats it.

# To pin it by digest as well: docker buildx imagetools inspect rust:1.95.0-slim-bookworm
FROM rust:1.95.0-slim-bookworm AS build
# aws-lc-sys and SQLite are C; the certificates of authorities go into the image.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install -y --no-install-recommends ca-certificates gcc libc6-dev \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /build
# Dependencies change seldom: built over empty targets, they stay in a layer of their own.
COPY Cargo.toml Cargo.lock ./
RUN mkdir -p src tests/it benches/allocations benches/identity benches/load benches/operations benches/replicas benches/trail \
    && for target in src tests/it benches/allocations benches/identity benches/load benches/operations benches/replicas benches/trail; do \
        echo 'fn main() {}' > "$target/main.rs"; \
    done \
    && touch src/lib.rs \
    && cargo build --locked --profile dist \
    && rm -rf src
COPY build.rs build.rs
COPY migrations migrations
COPY src src
# The copied files may be older than the empty ones that were built.
RUN find src -name '*.rs' -exec touch {} + && cargo build --locked --profile dist
# All that the image holds: the program, the libraries that it asks for, authorities, its configuration.
COPY deploy/docker/image-share-gateway.toml /root-of-image/etc/image-share-gateway.toml
SHELL ["/bin/bash", "-euo", "pipefail", "-c"]
RUN root=/root-of-image program=target/dist/image-share-gateway \
    && install -D -m 0755 "$program" "$root/usr/local/bin/image-share-gateway" \
    && ldd "$program" | grep -o '/[^ ]*' | xargs -I{} cp --parents -L {} "$root" \
    && install -D -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt" \
    && mkdir /empty

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="image-share-gateway" \
      org.opencontainers.image.description="Share CompShare machine images through REST: signed with keys that only the gateway holds, and audited." \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
COPY --from=build /root-of-image /
# Any user of group 0 may write it, as platforms run it that give each project users of its own (OpenShift).
COPY --from=build --chown=65532:0 --chmod=0770 /empty /data
USER 65532:0
WORKDIR /data
VOLUME /data
EXPOSE 8080 9090
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=6s --start-period=5s \
    CMD ["/usr/local/bin/image-share-gateway", "healthcheck", "--config", "/etc/image-share-gateway.toml"]
ENTRYPOINT ["/usr/local/bin/image-share-gateway"]
CMD ["serve", "--config", "/etc/image-share-gateway.toml"]
