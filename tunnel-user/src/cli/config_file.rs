//! The configuration file: YAML, one flat mapping from flag names to values.
//!
//! Scalars keep the text that stands in the file (`0x10`, `5s`, `1e3`): their meaning is the
//! flag's business, not YAML's.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use serde::de::{
    DeserializeSeed, Deserializer, Error as _, IgnoredAny, MapAccess, SeqAccess, Visitor,
};
use serde_saphyr::Spanned;

use super::layers::Shape;

/// Names that are this alike are offered as what may have been meant.
const ALIKE: f64 = 0.7;

/// What a configuration file sets; every key is a known flag.
#[derive(Debug)]
pub(super) struct ConfigFile {
    path: PathBuf,
    entries: BTreeMap<String, Entry>,
}

/// The values of one key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Entry {
    /// The line of the key, from 1.
    pub(super) line: u64,
    /// One for a plain flag or a switch, any number for a repeatable flag.
    pub(super) values: Vec<String>,
}

impl ConfigFile {
    /// Reads a file whose keys must be among `flags`, with values of their shape.
    pub(super) fn read(path: &Path, flags: &BTreeMap<String, Shape>) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path)
            .with_context(|| format!("cannot read configuration file {}", path.display()))?;
        Self::parse(path, &text, flags)
    }

    fn parse(path: &Path, text: &str, flags: &BTreeMap<String, Shape>) -> anyhow::Result<Self> {
        let mut file = Self {
            path: path.to_owned(),
            entries: BTreeMap::new(),
        };
        for (line, key, values) in
            read_mapping(text, flags).map_err(|error| file.invalid(&error))?
        {
            let Some(values) = values else {
                bail!("{}: {}", file.at(line), unknown_key(&key, flags));
            };
            file.entries.insert(key, Entry { line, values });
        }
        Ok(file)
    }

    /// What the file sets, by flag.
    pub(super) fn entries(&self) -> &BTreeMap<String, Entry> {
        &self.entries
    }

    /// Names a line of the file for an error.
    pub(super) fn at(&self, line: u64) -> String {
        format!("{}:{line}", self.path.display())
    }

    fn invalid(&self, error: &serde_saphyr::Error) -> anyhow::Error {
        let plain = error.without_snippet();
        anyhow!("configuration file {}: {plain}", self.path.display())
    }
}

fn unknown_key(key: &str, flags: &BTreeMap<String, Shape>) -> String {
    let nearest = flags
        .keys()
        .map(|flag| (strsim::jaro_winkler(key, flag), flag))
        .max_by(|a, b| a.0.total_cmp(&b.0))
        .filter(|(likeness, _)| *likeness >= ALIKE);
    match nearest {
        Some((_, flag)) => format!("unknown key {key:?}: did you mean {flag:?}?"),
        None => format!(
            "unknown key {key:?}: keys are the names of the flags without the dashes, see --help"
        ),
    }
}

/// Line, key, and the values if the key is known.
type Line = (u64, String, Option<Vec<String>>);

fn read_mapping(
    text: &str,
    flags: &BTreeMap<String, Shape>,
) -> Result<Vec<Line>, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        // A snippet would print the neighbouring lines, and a token may stand there.
        with_snippet: false,
        strict_booleans: true,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        deserializer.deserialize_any(Mapping { flags })
    })
}

struct Mapping<'a> {
    flags: &'a BTreeMap<String, Shape>,
}

impl<'de> Visitor<'de> for Mapping<'_> {
    type Value = Vec<Line>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("lines of the form `flag: value`")
    }

    /// A file of nothing but comments.
    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(Vec::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut lines = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let line = key.referenced.line();
            let values = match self.flags.get(&key.value) {
                Some(shape) => Some(map.next_value_seed(Values {
                    key: &key.value,
                    shape: *shape,
                })?),
                None => map.next_value::<IgnoredAny>().map(|_| None)?,
            };
            lines.push((line, key.value, values));
        }
        Ok(lines)
    }
}

/// Reads what stands at one key.
struct Values<'a> {
    key: &'a str,
    shape: Shape,
}

impl<'de> DeserializeSeed<'de> for Values<'_> {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        let key = self.key;
        let read = match self.shape {
            Shape::Switch | Shape::One => deserializer.deserialize_string(self),
            Shape::Many => deserializer.deserialize_any(self),
        };
        read.map_err(|error| D::Error::custom(format_args!("{key}: {error}")))
    }
}

impl<'de> Visitor<'de> for Values<'_> {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.shape {
            Shape::Switch => "true or false",
            Shape::One => "one value",
            Shape::Many => "a value or a list of values",
        })
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(vec![text.to_owned()])
    }

    fn visit_u64<E>(self, number: u64) -> Result<Self::Value, E> {
        Ok(vec![number.to_string()])
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element::<String>()? {
            values.push(value);
        }
        Ok(values)
    }
}
