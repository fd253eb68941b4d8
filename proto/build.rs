//! Compiles `peer.proto` in pure Rust (protox), so that a build needs no `protoc`.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=peer.proto");
    let descriptors = protox::compile(["peer.proto"], ["."])?;
    tonic_prost_build::configure()
        .bytes(".")
        .compile_fds(descriptors)?;
    Ok(())
}
