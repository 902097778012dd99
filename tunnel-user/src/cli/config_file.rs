//! The configuration file: YAML, one flat mapping from flag names to values.
//!
//! Scalars keep the text that stands in the file (`0x10`, `5s`, `1e3`): their meaning is the
//! flag's business, not YAML's.

use std::{
    cell::Cell,
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
};

use anyhow::{Context, anyhow, bail};
use serde::de::{
    self, DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Unexpected, Visitor,
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
        let reading = Cell::new(None);
        let lines = read_mapping(text, flags, &reading)
            .map_err(|error| file.invalid(&error, reading.take()))?;
        for (line, key, values) in lines {
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

    fn invalid(&self, error: &serde_saphyr::Error, reading: Option<Reading>) -> anyhow::Error {
        let error = error.without_snippet();
        if let serde_saphyr::Error::DuplicateMappingKey { key, location } = error {
            let key = key.as_deref().unwrap_or("a key");
            let place = self.at(location.line());
            return anyhow!("{place}: {key} is set twice: remove one of the lines");
        }
        match reading {
            Some((line, key, shape)) => {
                let place = self.at(line);
                anyhow!("{place}: {key} takes {}: {error}", expectation(shape))
            }
            None => anyhow!("configuration file {}: {error}", self.path.display()),
        }
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

/// The line, key and shape of the value being read.
type Reading = (u64, String, Shape);

fn read_mapping(
    text: &str,
    flags: &BTreeMap<String, Shape>,
    reading: &Cell<Option<Reading>>,
) -> Result<Vec<Line>, serde_saphyr::Error> {
    let options = serde_saphyr::options! {
        // A snippet would print the neighbouring lines, and a token may stand there.
        with_snippet: false,
        strict_booleans: true,
    };
    serde_saphyr::with_deserializer_from_str_with_options(text, options, |deserializer| {
        deserializer.deserialize_any(Mapping { flags, reading })
    })
}

struct Mapping<'a> {
    flags: &'a BTreeMap<String, Shape>,
    /// Tells the error of a value which key it belongs to.
    reading: &'a Cell<Option<Reading>>,
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

    /// Without the text that stands there: somebody may have named the token's file by mistake.
    fn visit_str<E: de::Error>(self, _text: &str) -> Result<Self::Value, E> {
        Err(E::invalid_type(Unexpected::Other("a text"), &self))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut lines = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let (line, key) = (key.referenced.line(), key.value);
            let values = match self.flags.get(&key).copied() {
                Some(shape) => {
                    self.reading.set(Some((line, key.clone(), shape)));
                    let values = map.next_value_seed(Values(shape))?;
                    self.reading.set(None);
                    Some(values)
                }
                None => map.next_value::<IgnoredAny>().map(|_| None)?,
            };
            lines.push((line, key, values));
        }
        Ok(lines)
    }
}

fn expectation(shape: Shape) -> &'static str {
    match shape {
        Shape::Switch => "true or false",
        Shape::One => "one value",
        Shape::Many => "a value or a list of values",
    }
}

/// Reads what stands at one key.
#[derive(Clone, Copy)]
struct Values(Shape);

impl<'de> DeserializeSeed<'de> for Values {
    type Value = Vec<String>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Vec<String>, D::Error> {
        match self.0 {
            Shape::Switch | Shape::One => deserializer.deserialize_option(self),
            Shape::Many => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Values {
    type Value = Vec<String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(expectation(self.0))
    }

    fn visit_none<E: de::Error>(self) -> Result<Self::Value, E> {
        Err(E::custom("nothing stands there"))
    }

    fn visit_unit<E: de::Error>(self) -> Result<Self::Value, E> {
        self.visit_none()
    }

    fn visit_some<D: Deserializer<'de>>(self, scalar: D) -> Result<Self::Value, D::Error> {
        scalar.deserialize_string(self)
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
