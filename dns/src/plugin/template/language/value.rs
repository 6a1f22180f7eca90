use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::sync::Arc;

/// What an expression can be.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::plugin::template) enum Value {
    /// Of a key that is not there.
    Nothing,
    Truth(bool),
    /// Any of Go's whole numbers.
    Number(i128),
    Text(Arc<str>),
    List(Arc<[Value]>),
    Map(Arc<BTreeMap<String, Value>>),
    /// Something with fields.
    Object(Object),
}

/// The things with fields.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::plugin::template) enum Object {
    /// What a template begins with as `.`.
    Root,
    Question,
    Message,
}

/// What is known of a field before there is a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Has no fields.
    Plain,
    /// Any field.
    Map,
    Object(Object),
    /// Takes an argument.
    Metadata,
}

/// What the templates of one query can say.
#[derive(Debug)]
pub(in crate::plugin::template) struct Data {
    pub(in crate::plugin::template) zone: Arc<str>,
    /// In lower case.
    pub(in crate::plugin::template) name: Arc<str>,
    pub(in crate::plugin::template) regex: Arc<str>,
    pub(in crate::plugin::template) matches: Arc<[Value]>,
    pub(in crate::plugin::template) group: Arc<BTreeMap<String, Value>>,
    pub(in crate::plugin::template) class: Arc<str>,
    pub(in crate::plugin::template) rtype: Arc<str>,
    /// The client's address.
    pub(in crate::plugin::template) remote: Arc<str>,
    /// As it was asked.
    pub(in crate::plugin::template) question_name: Arc<str>,
    pub(in crate::plugin::template) question_type: u16,
    pub(in crate::plugin::template) question_class: u16,
    pub(in crate::plugin::template) id: u16,
    pub(in crate::plugin::template) recursion_desired: bool,
    pub(in crate::plugin::template) checking_disabled: bool,
    pub(in crate::plugin::template) authentic_data: bool,
}

/// The fields of [`Object::Root`], for error messages.
const ROOT_FIELDS: &str =
    ".Zone, .Name, .Class, .Type, .Match, .Group, .Message, .Question, .Remote, .Regex, .Meta";
const QUESTION_FIELDS: &str = ".Name, .Qtype, .Qclass";
const MESSAGE_FIELDS: &str =
    ".Id, .RecursionDesired, .CheckingDisabled, .AuthenticatedData, .Question";

impl Object {
    /// What kind a field is of. The error is a sentence.
    pub(super) fn kind(self, field: &str) -> Result<Kind, String> {
        match (self, field) {
            (Self::Root, "Zone" | "Name" | "Class" | "Type" | "Remote" | "Regex" | "Match")
            | (Self::Question, "Name" | "Qtype" | "Qclass")
            | (
                Self::Message,
                "Id" | "RecursionDesired" | "CheckingDisabled" | "AuthenticatedData" | "Question",
            ) => Ok(Kind::Plain),
            (Self::Root, "Group") => Ok(Kind::Map),
            (Self::Root, "Question") => Ok(Kind::Object(Self::Question)),
            (Self::Root, "Message") => Ok(Kind::Object(Self::Message)),
            (Self::Root, "Meta") => Ok(Kind::Metadata),
            (Self::Root, "Var") => {
                Err("there are no variables of `var`: expressions are not run".to_owned())
            }
            _ => {
                let known = match self {
                    Self::Root => ROOT_FIELDS,
                    Self::Question => QUESTION_FIELDS,
                    Self::Message => MESSAGE_FIELDS,
                };
                Err(format!(
                    "there is no field .{field} here; known are: {known}"
                ))
            }
        }
    }
}

impl Data {
    /// The value of a field. The error is a sentence.
    pub(super) fn field(&self, of: &Value, field: &str) -> Result<Value, String> {
        match of {
            Value::Map(map) => Ok(map.get(field).cloned().unwrap_or(Value::Nothing)),
            Value::Object(object) => self.object_field(*object, field),
            _ => Err(format!("`{of}` has no field .{field}")),
        }
    }

    fn object_field(&self, object: Object, field: &str) -> Result<Value, String> {
        let text = |text: &Arc<str>| Value::Text(Arc::clone(text));
        Ok(match (object, field) {
            (Object::Root, "Zone") => text(&self.zone),
            (Object::Root, "Name") => text(&self.name),
            (Object::Root, "Class") => text(&self.class),
            (Object::Root, "Type") => text(&self.rtype),
            (Object::Root, "Remote") => text(&self.remote),
            (Object::Root, "Regex") => text(&self.regex),
            (Object::Root, "Match") => Value::List(Arc::clone(&self.matches)),
            (Object::Root, "Group") => Value::Map(Arc::clone(&self.group)),
            (Object::Root, "Question") => Value::Object(Object::Question),
            (Object::Root, "Message") => Value::Object(Object::Message),
            (Object::Question, "Name") => text(&self.question_name),
            (Object::Question, "Qtype") => Value::Number(self.question_type.into()),
            (Object::Question, "Qclass") => Value::Number(self.question_class.into()),
            (Object::Message, "Id") => Value::Number(self.id.into()),
            (Object::Message, "RecursionDesired") => Value::Truth(self.recursion_desired),
            (Object::Message, "CheckingDisabled") => Value::Truth(self.checking_disabled),
            (Object::Message, "AuthenticatedData") => Value::Truth(self.authentic_data),
            (Object::Message, "Question") => Value::List([Value::Object(Object::Question)].into()),
            _ => return Err(format!("there is no field .{field} here")),
        })
    }
}

impl Value {
    pub(in crate::plugin::template) fn text(text: &str) -> Self {
        Self::Text(text.into())
    }

    /// What `if` takes it for.
    pub(super) fn is_true(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Truth(truth) => *truth,
            Self::Number(number) => *number != 0,
            Self::Text(text) => !text.is_empty(),
            Self::List(list) => !list.is_empty(),
            Self::Map(map) => !map.is_empty(),
            Self::Object(_) => true,
        }
    }
}

/// As Go's `fmt.Print` writes it.
impl Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nothing => f.write_str("<no value>"),
            Self::Truth(truth) => write!(f, "{truth}"),
            Self::Number(number) => write!(f, "{number}"),
            Self::Text(text) => f.write_str(text),
            Self::List(list) => {
                let texts: Vec<_> = list.iter().map(ToString::to_string).collect();
                write!(f, "[{}]", texts.join(" "))
            }
            Self::Map(map) => {
                let texts: Vec<_> = map
                    .iter()
                    .map(|(key, value)| format!("{key}:{value}"))
                    .collect();
                write!(f, "map[{}]", texts.join(" "))
            }
            Self::Object(object) => write!(f, "<{object:?}>"),
        }
    }
}
