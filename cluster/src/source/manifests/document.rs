//! The text of one manifest file → the objects in it.

use serde_json::Value;

use crate::decode::{Decoded, Keep, Undecodable, decode};
use crate::interner::Interner;
use crate::object::{Kind, Object, ObjectName};
use crate::source::LabelSelector;
use crate::update::Problem;

/// Upper bounds of one YAML document, so that a hostile file can't eat the machine: the
/// largest Lists seen in the wild (20,000 Services in one document) stay far below.
const MAX_YAML_NODES_PER_DOCUMENT: usize = 10_000_000;
const MAX_YAML_SCALAR_BYTES_PER_DOCUMENT: usize = 256 << 20;
const MAX_YAML_DOCUMENTS: usize = 1_000_000;

/// How a file is written, by the end of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Format {
    Yaml,
    Json,
}

impl Format {
    /// The format of a file of this name; `None` for files that are no manifests.
    pub(super) fn of(file_name: &str) -> Option<Self> {
        let (stem, ending) = file_name.rsplit_once('.')?;
        if stem.is_empty() || file_name.starts_with('.') {
            return None;
        }
        match ending {
            "yaml" | "yml" => Some(Self::Yaml),
            "json" => Some(Self::Json),
            _ => None,
        }
    }
}

/// A kind to read, and which of its objects.
pub(super) struct Wanted {
    pub(super) kind: Kind,
    pub(super) labels: Option<LabelSelector>,
}

impl Wanted {
    fn selects(&self, kind: Kind, object: &Value) -> bool {
        let Some(selector) = &self.labels else {
            return self.kind == kind;
        };
        let labels = object
            .pointer("/metadata/labels")
            .and_then(Value::as_object);
        let labels = labels.into_iter().flatten().filter_map(|(key, value)| {
            let value = value.as_str()?;
            Some((key.clone(), value.to_owned()))
        });
        self.kind == kind && selector.selects(&labels.collect())
    }
}

/// One object of a file.
#[derive(Debug, PartialEq)]
pub(super) struct Item {
    /// `file.yaml, document 3`.
    pub(super) place: String,
    pub(super) kind: Kind,
    pub(super) name: ObjectName,
    /// The object and what is odd about it, or why it could not be read; problems carry
    /// place and full field path.
    pub(super) read: Result<(Object, Vec<Problem>), Problem>,
}

/// Reads every object of the wanted kinds in a file.
///
/// # Errors
/// If a part of the text can't be tied to an object: then nothing is known about what the
/// file means to say, and its last good content should stay.
pub(super) fn read(
    file_name: &str,
    format: Format,
    text: &str,
    wanted: &[Wanted],
    keep: Keep,
    names: &mut Interner,
) -> Result<Vec<Item>, Problem> {
    let mut reader = Reader {
        file_name,
        wanted,
        keep,
        names,
        items: Vec::new(),
    };
    match format {
        Format::Yaml => reader.yaml(text)?,
        Format::Json => reader.json(text)?,
    }
    Ok(reader.items)
}

struct Reader<'a> {
    file_name: &'a str,
    wanted: &'a [Wanted],
    keep: Keep,
    names: &'a mut Interner,
    items: Vec<Item>,
}

/// Where in a file an object stands.
struct Place<'a> {
    /// `file.yaml, document 3`.
    document: &'a str,
    /// `items[4].`, empty outside lists.
    prefix: &'a str,
}

impl Place<'_> {
    fn problem(&self, field: &str, message: impl Into<String>) -> Problem {
        Problem {
            place: self.document.to_owned(),
            field: format!("{}{field}", self.prefix),
            message: message.into(),
        }
    }
}

impl Reader<'_> {
    fn yaml(&mut self, text: &str) -> Result<(), Problem> {
        let options = serde_saphyr::options! {
            budget: serde_saphyr::budget! {
                max_events: 2 * MAX_YAML_NODES_PER_DOCUMENT,
                max_nodes: MAX_YAML_NODES_PER_DOCUMENT,
                max_total_scalar_bytes: MAX_YAML_SCALAR_BYTES_PER_DOCUMENT,
                max_documents: MAX_YAML_DOCUMENTS,
                max_reader_input_bytes: None,
            },
            // What YAML 1.2 says and kubectl's users mean: a name like "on" is a name.
            strict_booleans: true,
            with_snippet: false,
        };
        let mut bytes = text.as_bytes();
        let documents = serde_saphyr::read_with_options::<_, Value>(&mut bytes, options);
        for (number, document) in (1..).zip(documents) {
            let place = format!("{}, document {number}", self.file_name);
            match document {
                Ok(document) => self.document(&place, &document)?,
                Err(error) => {
                    return Err(Problem {
                        place,
                        field: String::new(),
                        message: format!("not YAML: {error}"),
                    });
                }
            }
        }
        Ok(())
    }

    fn json(&mut self, text: &str) -> Result<(), Problem> {
        let mut stream = serde_json::Deserializer::from_str(text).into_iter::<Value>();
        let mut number = 0;
        loop {
            number += 1;
            let place = format!("{}, document {number}", self.file_name);
            match stream.next() {
                None => return Ok(()),
                Some(Ok(document)) => self.document(&place, &document)?,
                Some(Err(error)) => {
                    return Err(Problem {
                        place,
                        field: String::new(),
                        message: format!("not JSON: {error}"),
                    });
                }
            }
        }
    }

    fn document(&mut self, document: &str, value: &Value) -> Result<(), Problem> {
        if value.is_null() {
            return Ok(());
        }
        let place = Place {
            document,
            prefix: "",
        };
        self.object(&place, value, None)
    }

    /// One object, or a list of them. `of_list` is what the list says its items are.
    fn object(
        &mut self,
        place: &Place<'_>,
        value: &Value,
        of_list: Option<(&str, &str)>,
    ) -> Result<(), Problem> {
        let Value::Object(fields) = value else {
            let found = words_for(value);
            let message = format!("found {found}: expected an object with kind and metadata");
            return Err(place.problem("", message));
        };
        let text_of = |field: &str| fields.get(field).and_then(Value::as_str);
        let (list_version, list_kind) = of_list.unwrap_or(("", ""));
        let kind = text_of("kind").unwrap_or(list_kind);
        let version = text_of("apiVersion").unwrap_or(list_version);
        if kind.is_empty() {
            return Err(place.problem("kind", "missing: expected the object's kind, like Service"));
        }
        if let (Some(of), Some(items)) = (kind.strip_suffix("List"), fields.get("items")) {
            let of = (version, of);
            return self.list(place, items, of);
        }
        match known_kind(kind, version) {
            Known::Yes(kind) if self.wanted.iter().any(|wanted| wanted.selects(kind, value)) => {
                self.item(place, kind, value)
            }
            Known::Yes(_) => Ok(()),
            Known::No => {
                tracing::debug!(
                    place = place.document,
                    kind,
                    version,
                    "kind not used, skipped"
                );
                Ok(())
            }
            Known::OtherVersion(expected) => {
                let message = format!("unknown version \"{version}\": expected {expected}");
                Err(place.problem("apiVersion", message))
            }
        }
    }

    fn list(&mut self, place: &Place<'_>, items: &Value, of: (&str, &str)) -> Result<(), Problem> {
        if items.is_null() {
            return Ok(());
        }
        let Value::Array(items) = items else {
            let found = words_for(items);
            let message = format!("found {found}: expected the list of objects");
            return Err(place.problem("items", message));
        };
        for (at, item) in items.iter().enumerate() {
            let prefix = format!("{}items[{at}].", place.prefix);
            let place = Place {
                document: place.document,
                prefix: &prefix,
            };
            self.object(&place, item, Some(of))?;
        }
        Ok(())
    }

    fn item(&mut self, place: &Place<'_>, kind: Kind, value: &Value) -> Result<(), Problem> {
        let placed = |problem: Problem| place.problem(&problem.field, problem.message);
        let item = match decode(kind, &value.to_string(), self.keep, self.names) {
            Ok(Decoded {
                object, oddities, ..
            }) => Item {
                place: place.document.to_owned(),
                kind,
                name: object.name().clone(),
                read: Ok((object, oddities.into_iter().map(placed).collect())),
            },
            Err(Undecodable { name, problem, .. }) => Item {
                place: place.document.to_owned(),
                kind,
                name: name.ok_or_else(|| placed(problem.clone()))?,
                read: Err(placed(problem)),
            },
        };
        self.items.push(item);
        Ok(())
    }
}

enum Known {
    Yes(Kind),
    /// One of our kinds, but in a version of its group that we can't read.
    OtherVersion(&'static str),
    No,
}

/// Kinds are told apart by group and kind: other groups have a `Service`, too. An object
/// without any apiVersion is taken for what its kind says.
fn known_kind(kind: &str, api_version: &str) -> Known {
    let Some(kind) = Kind::ALL.into_iter().find(|known| known.as_str() == kind) else {
        return Known::No;
    };
    let versions: &[&'static str] = match kind {
        Kind::Service | Kind::Endpoints | Kind::Node | Kind::Namespace | Kind::Pod => &["v1"],
        Kind::EndpointSlice => &["discovery.k8s.io/v1"],
        // The beta has the same fields.
        Kind::ServiceCidr => &["networking.k8s.io/v1", "networking.k8s.io/v1beta1"],
    };
    if api_version.is_empty() || versions.contains(&api_version) {
        return Known::Yes(kind);
    }
    let group = |version: &str| version.split_once('/').map(|(group, _)| group.to_owned());
    match versions.first() {
        Some(first) if group(first) == group(api_version) => Known::OtherVersion(first),
        _ => Known::No,
    }
}

const fn words_for(value: &Value) -> &'static str {
    match value {
        Value::Null => "nothing",
        Value::Bool(_) => "true or false",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}
