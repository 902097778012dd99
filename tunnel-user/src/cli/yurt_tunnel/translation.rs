//! A command line of Yurt-Tunnel's in culvert's words.

use std::fmt::{self, Display};

/// What is to be parsed instead, and what is left out.
#[derive(Clone, Debug)]
pub(in crate::cli) struct Translation {
    role: &'static str,
    /// Flags and values, as on a command line.
    set: Vec<String>,
    /// What counts where neither a flag nor the environment nor the file says anything.
    defaults: Vec<(&'static str, String)>,
    ignored: Vec<Ignored>,
}

/// A flag that means nothing here.
#[derive(Clone, Debug)]
struct Ignored {
    flag: String,
    instead: &'static str,
}

/// What the log says of a translated command line.
#[derive(Clone, Debug)]
pub struct Translated {
    program: &'static str,
    pub(super) translation: Translation,
}

impl Translation {
    pub(super) fn to(role: &'static str) -> Self {
        let mut translation = Self {
            role,
            set: Vec::new(),
            defaults: Vec::new(),
            ignored: Vec::new(),
        };
        translation.set.push("--kubernetes".to_owned());
        translation.by_default("yurt-tunnel-metrics", true);
        translation
    }

    pub(super) fn set(&mut self, flag: &str, value: impl Display) {
        self.set.push(format!("--{flag}={value}"));
    }

    /// Where it is given.
    pub(super) fn set_if(&mut self, flag: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.set(flag, value);
        }
    }

    pub(super) fn by_default(&mut self, flag: &'static str, value: impl Display) {
        self.defaults.push((flag, value.to_string()));
    }

    /// As given, or else Yurt-Tunnel's default.
    pub(super) fn set_or(
        &mut self,
        flag: &'static str,
        value: Option<impl Display>,
        default: impl Display,
    ) {
        match value {
            Some(value) => self.set(flag, value),
            None => self.by_default(flag, default),
        }
    }

    pub(super) fn ignore(&mut self, flag: impl Into<String>, instead: &'static str) {
        let flag = flag.into();
        self.ignored.push(Ignored { flag, instead });
    }

    /// Says that a flag means nothing, where it is given.
    pub(super) fn ignore_if(
        &mut self,
        flag: &str,
        value: Option<impl Display>,
        instead: &'static str,
    ) {
        if let Some(value) = value {
            self.ignore(format!("--{flag}={value}"), instead);
        }
    }

    pub(in crate::cli) fn role(&self) -> &'static str {
        self.role
    }

    /// The command line that means the same.
    pub(in crate::cli) fn args(&self) -> impl Iterator<Item = &str> {
        let set = self.set.iter().map(String::as_str);
        ["culvert", self.role].into_iter().chain(set)
    }

    pub(in crate::cli) fn defaults(&self) -> impl Iterator<Item = (&str, &str)> {
        let defaults = self.defaults.iter();
        defaults.map(|(flag, value)| (*flag, value.as_str()))
    }

    pub(in crate::cli) fn of(self, program: super::Program) -> Translated {
        Translated {
            program: program.name(),
            translation: self,
        }
    }
}

impl Display for Translation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let args: Vec<_> = self.args().collect();
        f.write_str(&args.join(" "))
    }
}

impl Translated {
    /// Says in the log what the command line means here, and what of it nothing.
    pub fn tell(&self) {
        let Self {
            program,
            translation,
        } = self;
        let defaults: Vec<_> = translation.defaults().collect();
        let defaults = defaults
            .iter()
            .map(|(flag, value)| format!("--{flag}={value}"));
        let defaults = defaults.collect::<Vec<_>>().join(" ");
        tracing::info!(
            program, means = %translation, unless_set_otherwise = defaults,
            "started by Yurt-Tunnel's command line",
        );
        if let Some(ignored) = self.ignored() {
            tracing::warn!(ignored, "what means nothing here, and what takes its place");
        }
    }

    pub(super) fn ignored(&self) -> Option<String> {
        let ignored = self.translation.ignored.iter();
        let ignored: Vec<_> = ignored
            .map(|Ignored { flag, instead }| format!("{flag}: {instead}"))
            .collect();
        (!ignored.is_empty()).then(|| ignored.join("; "))
    }
}
