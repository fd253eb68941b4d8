# Images from one build: `docker build --target node -t REGISTRY/annulus-node:0.1.0 .`,
# `docker build --target operator -t REGISTRY/annulus-operator:0.1.0 .`, and `--target origin` for examples/cachegroup.yaml.
#
# The programs are static, so each image is its program and nothing else, run by an unprivileged user.
FROM docker.io/library/rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
RUN target="$(rustc -vV | sed -n 's/^host: //p')" \
    && RUSTFLAGS="-C target-feature=+crt-static" \
       cargo build --release --locked --target "$target" -p annulus-node -p annulus-operator -p annulus-origin \
    && mkdir /out \
    && cp "target/$target/release/annulus-node" "target/$target/release/annulus-operator" \
       "target/$target/release/annulus-origin" /out/

FROM scratch AS node
COPY --from=build /out/annulus-node /annulus-node
USER 65532:65532
ENTRYPOINT ["/annulus-node"]

FROM scratch AS operator
COPY --from=build /out/annulus-operator /annulus-operator
USER 65532:65532
ENTRYPOINT ["/annulus-operator"]

FROM scratch AS origin
COPY --from=build /out/annulus-origin /annulus-origin
USER 65532:65532
ENTRYPOINT ["/annulus-origin"]
