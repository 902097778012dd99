//! Whether the way to the API server leads through a proxy.
//!
//! A kubeconfig's `proxy-url` is meant for its cluster and always used, as kubectl does. That of the environment is
//! meant for all programs: `NO_PROXY` takes targets out, by host name, address or network. (kube asks whether
//! `NO_PROXY` has the *proxy*.)

use http::Uri;
use hyper_util::client::proxy::matcher::Matcher;

use super::entries::BadEntry;

/// Where the environment names the proxy for https.
const VARIABLES: [&str; 2] = ["HTTPS_PROXY", "https_proxy"];
const EXCEPTIONS: [&str; 2] = ["NO_PROXY", "no_proxy"];

/// The proxy for this API server, if there is one.
pub(super) fn for_target(named: Option<&str>, target: &Uri) -> Result<Option<Uri>, BadEntry> {
    choose(named, target, |variable| {
        std::env::var(variable)
            .ok()
            .filter(|value| !value.is_empty())
    })
}

fn choose(
    named: Option<&str>,
    target: &Uri,
    environment: impl Fn(&str) -> Option<String>,
) -> Result<Option<Uri>, BadEntry> {
    if let Some(proxy) = named.filter(|proxy| !proxy.is_empty()) {
        return parse("proxy-url of its cluster", proxy).map(Some);
    }
    let mut proxies = VARIABLES
        .iter()
        .filter_map(|variable| Some((*variable, environment(variable)?)));
    let Some((variable, proxy)) = proxies.next() else {
        return Ok(None);
    };
    let exceptions = EXCEPTIONS.iter().find_map(|variable| environment(variable));
    let exceptions = exceptions.unwrap_or_default();
    // The library takes it for host names alone.
    let takes_out_all = exceptions.split(',').any(|one| one.trim() == "*");
    let matcher = Matcher::builder().all("http://proxy").no(exceptions);
    if takes_out_all || matcher.build().intercept(target).is_none() {
        return Ok(None);
    }
    parse(&format!("the environment's {variable}"), &proxy).map(Some)
}

/// Without a scheme it is `http`, as everywhere.
fn parse(entry: &str, proxy: &str) -> Result<Uri, BadEntry> {
    let with_scheme = if proxy.contains("://") {
        proxy.to_owned()
    } else {
        format!("http://{proxy}")
    };
    let uri = with_scheme.parse::<Uri>().ok();
    let usable = uri
        .filter(|uri| uri.host().is_some() && matches!(uri.scheme_str(), Some("http" | "https")));
    usable.ok_or_else(|| {
        // It may hold a password.
        BadEntry::new(
            entry,
            "is no URL of a proxy as in http://10.0.0.9:3128: correct it, or take the API server out with NO_PROXY",
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(named: Option<&str>, environment: &[(&str, &str)]) -> Result<String, String> {
        let target = "https://10.177.0.1:6443".parse().unwrap();
        let value = |variable: &str| {
            let mut set = environment.iter();
            let (_, value) = set.find(|(name, _)| *name == variable)?;
            Some((*value).to_owned())
        };
        choose(named, &target, value)
            .map(|proxy| proxy.map_or_else(String::new, |proxy| proxy.to_string()))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_kubeconfigs_proxy_is_used_and_that_of_the_environment_unless_the_target_is_taken_out() {
        let proxy = ("HTTPS_PROXY", "http://user:secret@10.177.0.9:3128");
        let used = "http://user:secret@10.177.0.9:3128/".to_owned();
        assert_eq!(chosen(None, &[]), Ok(String::new()));
        assert_eq!(chosen(None, &[proxy]), Ok(used.clone()));
        for taken_out in [
            "10.177.0.0/24",
            "10.177.0.1",
            "example.com, 10.177.0.1",
            "*",
        ] {
            let environment = [proxy, ("NO_PROXY", taken_out)];
            assert_eq!(chosen(None, &environment), Ok(String::new()), "{taken_out}");
        }
        for other in ["10.177.0.9", "10.178.0.0/16", "example.com"] {
            let environment = [proxy, ("no_proxy", other)];
            assert_eq!(chosen(None, &environment), Ok(used.clone()), "{other}");
        }
        let environment = [("https_proxy", "10.0.0.9:3128"), ("NO_PROXY", "")];
        assert_eq!(
            chosen(None, &environment),
            Ok("http://10.0.0.9:3128/".to_owned())
        );
        let environment = [("NO_PROXY", "*")];
        let named = chosen(Some("http://10.0.0.8:80"), &environment);
        assert_eq!(named, Ok("http://10.0.0.8:80/".to_owned()));
    }

    #[test]
    fn what_is_no_proxy_is_refused_and_its_password_not_told() {
        for wrong in ["ftp://user:secret@10.0.0.9", "http://user:secret@"] {
            let error = chosen(None, &[("HTTPS_PROXY", wrong)]).unwrap_err();
            assert!(
                error.contains("HTTPS_PROXY") && error.contains("NO_PROXY"),
                "{error}"
            );
            assert!(!error.contains("secret"), "{error}");
        }
    }
}
