# syntax=docker/dockerfile:1
# The image of Sealane, for those who build with a container engine:
#
#   docker build --tag sealane:0.1.0 .
#
# Without one, and with the same digest for the same binary every time:
#
#   cargo build --release -p sealane
#   cargo run --release -p sealane-tests --bin image -- build --binary target/release/sealane --out sealane.oci.tar

FROM rust:1.95-bookworm AS build
WORKDIR /src
COPY . .
# What was compiled before is kept between builds, outside the image.
RUN --mount=type=cache,target=/usr/local/cargo/registry --mount=type=cache,target=/src/target \
    cargo build --release --locked -p sealane --bin sealane && cp target/release/sealane /sealane

# The C library and what belongs to it, of the same Debian as above; no shell, no package manager. Its user `nonroot` is
# 65532, which the charts state too.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /sealane /sealane
USER 65532:65532
ENTRYPOINT ["/sealane"]
LABEL org.opencontainers.image.title="sealane" \
      org.opencontainers.image.description="Joins clusters into a federation" \
      org.opencontainers.image.licenses="Apache-2.0"
