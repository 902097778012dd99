//! `cargo xtask build-ebpf`: the objects that the binary embeds, and what is in them.

use std::fs;

use anyhow::{Context as _, Result};
use aya_obj::{Object, ProgramSection, generated::bpf_map_type};
use ebpf_builder::Variant;

use crate::shell;

/// Builds both objects and prints where they are and what they contain.
pub(crate) fn run() -> Result<()> {
    for variant in Variant::ALL {
        let built = ebpf_builder::build(variant)?;
        let bytes = fs::read(&built.path)
            .with_context(|| format!("cannot read {}", built.path.display()))?;
        println!(
            "{} ({}), {} bytes, by {}",
            built.path.display(),
            variant.name(),
            bytes.len(),
            built.toolchain
        );
        println!("  {}", shell::digest(&bytes));
        let object = Object::parse(&bytes).context("the object cannot be parsed")?;
        print_programs(&object)?;
        print_maps(&object)?;
    }
    Ok(())
}

fn print_programs(object: &Object) -> Result<()> {
    println!("  {:<14} {:<22} instructions", "program", "section");
    let mut programs: Vec<_> = object.programs.iter().collect();
    programs.sort_by_key(|(name, _)| *name);
    for (name, program) in programs {
        let function = object
            .functions
            .get(&program.function_key())
            .with_context(|| format!("program {name} has no code"))?;
        let section = section_name(&program.section);
        println!("  {name:<14} {section:<22} {}", function.instructions.len());
    }
    Ok(())
}

fn print_maps(object: &Object) -> Result<()> {
    println!(
        "  {:<14} {:<14} {:>4} {:>6} {:>8}",
        "map", "type", "key", "value", "entries"
    );
    let mut maps: Vec<_> = object.maps.iter().collect();
    maps.sort_by_key(|(name, _)| *name);
    for (name, map) in maps {
        let map_type = bpf_map_type::try_from(map.map_type())
            .ok()
            .with_context(|| format!("map {name} has an unknown type"))?;
        let map_type = format!("{map_type:?}")
            .trim_start_matches("BPF_MAP_TYPE_")
            .to_ascii_lowercase();
        println!(
            "  {name:<14} {map_type:<14} {:>4} {:>6} {:>8}",
            map.key_size(),
            map.value_size(),
            map.max_entries()
        );
    }
    Ok(())
}

fn section_name(section: &ProgramSection) -> String {
    match section {
        ProgramSection::CgroupSockAddr { attach_type } => format!("cgroup {attach_type:?}"),
        other => format!("{other:?}"),
    }
}
