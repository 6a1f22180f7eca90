use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Bounds of one document, far above any configuration.
const MAX_YAML_NODES: usize = 100_000;

/// A document, and the fields in it that were given twice.
#[derive(Debug, Default)]
pub(super) struct Document {
    pub(super) value: Value,
    /// Paths; of each field the last counts.
    pub(super) passed_over: Vec<String>,
}

/// The first document of a text: the reference reads no further, and says nothing. Here, what
/// comes after it is said to be passed over.
///
/// # Errors
/// What is no YAML, with its line.
pub(super) fn first(text: &str) -> Result<Document, String> {
    let options = serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_events: 2 * MAX_YAML_NODES,
            max_nodes: MAX_YAML_NODES,
        },
        duplicate_keys: serde_saphyr::DuplicateKeyPolicy::LastWins,
        with_snippet: false,
    };
    let mut bytes = text.as_bytes();
    let mut documents = serde_saphyr::read_with_options::<_, Document>(&mut bytes, options);
    let mut first = documents
        .next()
        .transpose()
        .map_err(|error| error.to_string())?
        .unwrap_or_default();
    if documents.next().is_some() {
        first
            .passed_over
            .push("all that comes after the first document".to_owned());
    }
    Ok(first)
}

impl<'de> Deserialize<'de> for Document {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_any(Whole)
    }
}

struct Whole;

impl From<Value> for Document {
    fn from(value: Value) -> Self {
        Self {
            value,
            passed_over: Vec::new(),
        }
    }
}

impl<'de> Visitor<'de> for Whole {
    type Value = Document;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("fields and values")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Document, E> {
        Ok(Value::Bool(value).into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Document, E> {
        let number = Number::from_f64(value).map_or(Value::Null, Value::Number);
        Ok(number.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Document, E> {
        Ok(Value::from(value).into())
    }

    fn visit_unit<E>(self) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_none<E>(self) -> Result<Document, E> {
        Ok(Document::default())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<Document, D::Error> {
        from.deserialize_any(self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut given: A) -> Result<Document, A::Error> {
        let (mut elements, mut passed_over) = (Vec::new(), Vec::new());
        while let Some(element) = given.next_element::<Document>()? {
            let at = elements.len();
            let below = element.passed_over.into_iter();
            passed_over.extend(below.map(|path| format!("[{at}].{path}")));
            elements.push(element.value);
        }
        Ok(Document {
            value: Value::Array(elements),
            passed_over,
        })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut given: A) -> Result<Document, A::Error> {
        let (mut fields, mut passed_over) = (Map::new(), Vec::new());
        while let Some((name, field)) = given.next_entry::<String, Document>()? {
            let below = field.passed_over.into_iter();
            passed_over.extend(below.map(|path| match path.strip_prefix('[') {
                Some(_) => format!("{name}{path}"),
                None => format!("{name}.{path}"),
            }));
            if fields.insert(name.clone(), field.value).is_some() {
                passed_over.push(format!("{name} (given twice; the last counts)"));
            }
        }
        Ok(Document {
            value: Value::Object(fields),
            passed_over,
        })
    }
}
