//! Lays environment and configuration file under the command line.
//!
//! Each becomes the default of the flag it sets: a flag on the command line then wins by clap's
//! own rule. The value is tried against the flag's parser first, so that the error can say where
//! the value stands instead of blaming a flag that nobody typed.

use std::{
    collections::{BTreeMap, BTreeSet},
    error::Error as _,
    ffi::{OsStr, OsString},
    path::PathBuf,
};

use anyhow::{anyhow, bail};
use clap::{
    Arg, ArgAction, Command,
    error::{ContextKind, ContextValue},
};

use super::{ParseError, config_file::ConfigFile, environment::Environment};

/// The id of the flag that names the configuration file.
const CONFIG: &str = "config";

/// What a flag takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// Nothing, or `=true` / `=false`.
    Switch,
    /// One value.
    One,
    /// Any number of values.
    Many,
}

/// Gives the subcommand that `args` ask for its defaults from the environment and from the file
/// that `--config` names.
pub(super) fn apply(
    root: &mut Command,
    args: &[OsString],
    environment: &Environment,
) -> Result<(), ParseError> {
    let Some(path) = subcommand_path(root, args) else {
        return Ok(());
    };
    let mut from_environment = Vec::new();
    // Every command on the way may have flags: those that its subcommands share.
    for depth in 1..=path.len() {
        let command = subcommand(root, &path[..depth]);
        from_environment.extend(apply_environment(command, environment)?);
    }
    if !flags(subcommand(root, &path)).contains_key(CONFIG) {
        return Ok(());
    }
    let mut matches = &root.clone().try_get_matches_from(args)?;
    for name in &path {
        matches = matches.subcommand_matches(name).unwrap_or(matches);
    }
    let Some(file) = matches.get_one::<PathBuf>(CONFIG) else {
        return Ok(());
    };
    let mut leaf_flags = flags(subcommand(root, &path));
    leaf_flags.remove(CONFIG);
    let shapes = leaf_flags
        .iter()
        .map(|(k, a)| (k.clone(), shape(a)))
        .collect();
    let file = ConfigFile::read(file, &shapes)?;
    for (flag, entry) in file.entries() {
        let values: Vec<OsString> = entry.values.iter().map(Into::into).collect();
        try_values(&leaf_flags[flag], &values)
            .map_err(|cause| anyhow!("{}: {flag}: {cause}", file.at(entry.line)))?;
        if !from_environment.contains(flag) {
            set_default(subcommand(root, &path), flag, &values);
        }
    }
    Ok(())
}

/// Gives flags of a subcommand other defaults, below whatever environment and file say.
pub(super) fn set_defaults<'a>(
    root: &mut Command,
    name: &str,
    defaults: impl Iterator<Item = (&'a str, &'a str)>,
) {
    let leaf = subcommand(root, &[name.to_owned()]);
    for (flag, value) in defaults {
        set_default(leaf, flag, &[value.into()]);
    }
}

/// The flags of a command and of all its subcommands.
pub(super) fn all_flags(command: &Command) -> BTreeSet<String> {
    let own = flags(command).into_keys();
    own.chain(command.get_subcommands().flat_map(all_flags))
        .collect()
}

/// Returns the flags that the environment sets.
fn apply_environment(
    leaf: &mut Command,
    environment: &Environment,
) -> Result<Vec<String>, anyhow::Error> {
    let mut set = Vec::new();
    for (flag, arg) in flags(leaf) {
        let Some((variable, value)) = environment.value_of(&flag) else {
            continue;
        };
        let values = vec![value.clone()];
        try_values(&arg, &values)
            .map_err(|cause| anyhow!("environment variable {variable}: {cause}"))?;
        set_default(leaf, &flag, &values);
        set.push(flag);
    }
    Ok(set)
}

/// The names that lead from the root to the subcommand which the arguments ask for. The root has
/// no flags of its own, so the names come first.
fn subcommand_path(root: &Command, args: &[OsString]) -> Option<Vec<String>> {
    let mut command = root;
    let mut path = Vec::new();
    for arg in args.iter().skip(1) {
        let Some(next) = command.find_subcommand(arg) else {
            break;
        };
        path.push(next.get_name().to_owned());
        command = next;
    }
    (!path.is_empty()).then_some(path)
}

fn subcommand<'a>(root: &'a mut Command, path: &[String]) -> &'a mut Command {
    path.iter().fold(root, |command, name| {
        command
            .find_subcommand_mut(name)
            .expect("the path was made from this command")
    })
}

fn flags(leaf: &Command) -> BTreeMap<String, Arg> {
    leaf.get_arguments()
        .filter_map(|arg| Some((arg.get_long()?.to_owned(), arg.clone())))
        .collect()
}

fn set_default(leaf: &mut Command, flag: &str, values: &[OsString]) {
    *leaf = std::mem::take(leaf).mut_args(|arg| {
        if arg.get_long() == Some(flag) {
            arg.required(false).default_values(values.to_vec())
        } else {
            arg
        }
    });
}

fn shape(arg: &Arg) -> Shape {
    let optional_value = arg.get_num_args().is_some_and(|n| n.min_values() == 0);
    match arg.get_action() {
        ArgAction::SetTrue | ArgAction::SetFalse => Shape::Switch,
        _ if optional_value => Shape::Switch,
        ArgAction::Append => Shape::Many,
        _ => Shape::One,
    }
}

/// Runs the values through the flag's own parser, alone.
fn try_values(arg: &Arg, values: &[OsString]) -> anyhow::Result<()> {
    if shape(arg) == Shape::Switch {
        let is_bool = |value: &OsString| value == "true" || value == "false";
        if let Some(value) = values.iter().find(|value| !is_bool(value)) {
            bail!("{:?} is neither true nor false", value.to_string_lossy());
        }
        return Ok(());
    }
    let long = arg.get_long().expect("only flags are tried");
    let given = values.iter().map(|value| {
        let mut given = OsString::from(format!("--{long}="));
        given.push::<&OsStr>(value);
        given
    });
    Command::new("culvert")
        .no_binary_name(true)
        .arg(arg.clone().required(false))
        .try_get_matches_from(given)
        .map(drop)
        .map_err(|error| anyhow!(cause(&error)))
}

/// Clap's error without the flag, which the caller names in its own way.
fn cause(error: &clap::Error) -> String {
    let value = match error.get(ContextKind::InvalidValue) {
        Some(ContextValue::String(value)) => value.as_str(),
        _ => "",
    };
    if let Some(source) = error.source() {
        return format!("{value:?} is not valid: {source}");
    }
    match error.get(ContextKind::ValidValue) {
        Some(ContextValue::Strings(valid)) if !valid.is_empty() => {
            format!("{value:?} is not valid: use {}", valid.join(", "))
        }
        _ => error.kind().to_string(),
    }
}
