//! Reads a kubeconfig. Whatever is wrong with it is said once, with the file, the entry and what to
//! do.

use std::{
    io,
    path::{Path, PathBuf},
};

use http::Uri;
use kube::{
    Config,
    config::{
        AuthInfo, Cluster, Context, KubeConfigOptions, Kubeconfig, KubeconfigError as KubeError,
    },
};

use super::{
    entries::{BadEntry, Content},
    proxy,
};
use crate::kubernetes::api_error::describe;

/// Why a kubeconfig cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("cannot use --kubeconfig {}: {problem}", file.display())]
pub struct KubeconfigError {
    file: PathBuf,
    problem: Problem,
}

#[derive(Debug, thiserror::Error)]
enum Problem {
    #[error("{0}: name another file, or let this user read it")]
    Unreadable(io::Error),
    #[error("it is no kubeconfig: {0}")]
    Syntax(String),
    #[error(
        "its current-context is not set: choose one of {0} with `kubectl config use-context NAME`"
    )]
    NoContext(String),
    #[error("{0}")]
    Entry(#[from] BadEntry),
    /// What is not looked for here.
    #[error("{0}")]
    Other(String),
}

/// Reads the file; nothing is asked of the API server.
pub(super) async fn read(file: &Path) -> Result<Config, KubeconfigError> {
    let failed = |problem| KubeconfigError {
        file: file.to_owned(),
        problem,
    };
    let kubeconfig = parse(file).map_err(failed)?;
    let proxy = check(&kubeconfig).map_err(failed)?.proxy_url.clone();
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default())
        .await
        .map_err(|error| failed(Problem::Other(describe(&error))))?;
    let proxy = proxy::for_target(proxy.as_deref(), &config.cluster_url);
    config.proxy_url = proxy.map_err(|error| failed(error.into()))?;
    Ok(config)
}

/// The file, and those that its current context names with certificates and keys.
pub(super) fn files(file: &Path) -> Vec<PathBuf> {
    let mut files = vec![file.to_owned()];
    let Ok(kubeconfig) = parse(file) else {
        return files;
    };
    let Ok(context) = current_context(&kubeconfig) else {
        return files;
    };
    let ca = current_cluster(&kubeconfig, context)
        .and_then(|cluster| cluster.certificate_authority.as_ref());
    let user = current_user(&kubeconfig, context);
    let certificate = user.and_then(|user| user.client_certificate.as_ref());
    let key = user.and_then(|user| user.client_key.as_ref());
    let named = [ca, certificate, key].into_iter().flatten();
    files.extend(named.map(PathBuf::from));
    files
}

/// Paths in it are relative to the file.
fn parse(file: &Path) -> Result<Kubeconfig, Problem> {
    Kubeconfig::read_from(file).map_err(|error| match error {
        KubeError::ReadConfig(error, _) => Problem::Unreadable(error),
        KubeError::Parse(error) => Problem::Syntax(error.to_string()),
        other => Problem::Other(describe(&other)),
    })
}

/// Returns the cluster of the context that is in use.
fn check(kubeconfig: &Kubeconfig) -> Result<&Cluster, Problem> {
    let context = current_context(kubeconfig)?;
    let name = &context.cluster;
    let cluster = current_cluster(kubeconfig, context).ok_or_else(|| {
        let known = names(kubeconfig.clusters.iter().map(|named| named.name.as_str()));
        missing("cluster", name, &known)
    })?;
    check_cluster(&format!("clusters[{name}]"), cluster)?;
    let Some(name) = context.user.as_ref().filter(|name| !name.is_empty()) else {
        return Ok(cluster);
    };
    let user = current_user(kubeconfig, context).ok_or_else(|| {
        let users = kubeconfig.auth_infos.iter();
        missing("user", name, &names(users.map(|named| named.name.as_str())))
    })?;
    check_user(&format!("users[{name}]"), user)?;
    Ok(cluster)
}

fn current_cluster<'a>(kubeconfig: &'a Kubeconfig, context: &Context) -> Option<&'a Cluster> {
    let mut clusters = kubeconfig.clusters.iter();
    let named = clusters.find(|named| named.name == context.cluster)?;
    named.cluster.as_ref()
}

fn current_user<'a>(kubeconfig: &'a Kubeconfig, context: &Context) -> Option<&'a AuthInfo> {
    let mut users = kubeconfig.auth_infos.iter();
    let named = users.find(|named| Some(&named.name) == context.user.as_ref())?;
    named.auth_info.as_ref()
}

fn current_context(kubeconfig: &Kubeconfig) -> Result<&Context, Problem> {
    let known = names(kubeconfig.contexts.iter().map(|named| named.name.as_str()));
    let current = kubeconfig.current_context.as_ref();
    let Some(current) = current.filter(|name| !name.is_empty()) else {
        return Err(Problem::NoContext(known));
    };
    let named = kubeconfig
        .contexts
        .iter()
        .find(|named| named.name == *current);
    let context = named.and_then(|named| named.context.as_ref());
    let missing = || {
        BadEntry::new(
            "current-context",
            format!(
                "is {current:?}, but the file has {known}: correct it with `kubectl config \
                 use-context NAME`"
            ),
        )
    };
    Ok(context.ok_or_else(missing)?)
}

fn missing(kind: &str, name: &str, known: &str) -> BadEntry {
    BadEntry::new(
        format!("the {kind} of its current context"),
        format!("is {name:?}, but the file has {known}: correct one of the two"),
    )
}

fn check_cluster(owner: &str, cluster: &Cluster) -> Result<(), BadEntry> {
    let server = cluster.server.as_deref().unwrap_or_default();
    let is_url = server
        .parse::<Uri>()
        .is_ok_and(|url| url.scheme().is_some() && url.host().is_some());
    if !is_url {
        return Err(BadEntry::new(
            format!("{owner}.server"),
            format!("is {server:?}, which is no URL as in https://10.0.0.1:6443"),
        ));
    }
    let ca = Content::read(
        owner,
        "certificate-authority",
        cluster.certificate_authority_data.as_deref(),
        cluster.certificate_authority.as_deref(),
    )?;
    let Some(ca) = ca else {
        return Err(BadEntry::new(
            owner,
            "has no certificate-authority and no certificate-authority-data: the cluster's CA, by \
             which servers and agents know each other, is not known without",
        ));
    };
    ca.authorities()
}

fn check_user(owner: &str, user: &AuthInfo) -> Result<(), BadEntry> {
    let token = Content::read(owner, "tokenFile", None, user.token_file.as_deref())?;
    token.map_or(Ok(()), |token| token.token())?;
    if let Some(exec) = &user.exec
        && exec.command.as_ref().is_none_or(String::is_empty)
    {
        let entry = format!("{owner}.exec");
        return Err(BadEntry::new(
            entry,
            "has no command: name the program that gives credentials",
        ));
    }
    let certificate = Content::read(
        owner,
        "client-certificate",
        user.client_certificate_data.as_deref(),
        user.client_certificate.as_deref(),
    )?;
    let key = Content::read(
        owner,
        "client-key",
        client_key_data(user).as_deref(),
        user.client_key.as_deref(),
    )?;
    match (certificate, key) {
        (None, None) => Ok(()),
        (Some(certificate), Some(key)) => {
            certificate.certificates()?;
            key.is_key_of(&certificate)
        }
        (Some(certificate), None) => {
            Err(certificate.bad("has no key beside it: add client-key or client-key-data"))
        }
        (None, Some(key)) => Err(key.bad(
            "has no certificate beside it: add client-certificate or client-certificate-data",
        )),
    }
}

/// The secret is told only to who writes the whole.
fn client_key_data(user: &AuthInfo) -> Option<String> {
    let user = serde_json::to_value(user).ok()?;
    Some(user.get("client-key-data")?.as_str()?.to_owned())
}

fn names<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let names: Vec<_> = names.collect();
    if names.is_empty() {
        return "none".to_owned();
    }
    names.join(", ")
}
