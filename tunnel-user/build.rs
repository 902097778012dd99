//! Compiles the kernel programs, so that the binary always carries those of its own sources, and
//! generates the gRPC code from `proto/`.

use std::{env, error::Error, fs, path::PathBuf, process::ExitCode};

use ebpf_builder::{BuildError, Variant};

const PROTOS: [&str; 2] = ["proto/agent.proto", "proto/culvert.proto"];

fn main() -> ExitCode {
    match build_ebpf()
        .map_err(Into::into)
        .and_then(|()| generate_grpc())
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // One line, or the compiler's own messages; a panic would bury either in a backtrace.
            println!(
                "cargo::error={}",
                error.to_string().replace('\n', "\ncargo::error=")
            );
            ExitCode::FAILURE
        }
    }
}

fn build_ebpf() -> Result<(), BuildError> {
    for input in ebpf_builder::inputs() {
        println!("cargo::rerun-if-changed={}", input.display());
    }
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    for variant in Variant::ALL {
        let object = ebpf_builder::build(variant)?;
        let embedded = out.join(variant.name()).with_extension("o");
        fs::copy(&object.path, embedded).map_err(BuildError::Start)?;
    }
    Ok(())
}

fn generate_grpc() -> Result<(), Box<dyn Error>> {
    for proto in PROTOS {
        println!("cargo::rerun-if-changed={proto}");
    }
    let descriptors = protox::compile(PROTOS, ["proto"])?;
    tonic_prost_build::configure()
        .bytes(".Data.data")
        .bytes(".DialRequest.firstBytes")
        .build_transport(false)
        .codec_path("crate::tunnel::grpc::LazyCodec")
        // It holds a secret.
        .skip_debug(["culvert.v1.EnrolRequest"])
        .compile_fds(descriptors)?;
    Ok(())
}
