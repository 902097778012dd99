//! Generates the gRPC code from `proto/`.

use std::error::Error;

const PROTOS: [&str; 2] = ["proto/agent.proto", "proto/culvert.proto"];

fn main() -> Result<(), Box<dyn Error>> {
    generate_grpc()
}

fn generate_grpc() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".Data.data")
        .build_transport(false)
        .compile_fds(descriptors)?;
    Ok(())
}
