//! What the API answers is what its description says, field by field.

use entrepot_testkit::{Proxy, Request};
use serde_json::Value;

use crate::images::pull;
use crate::{ALPINE, one_layer};

const DESCRIPTION: &str = include_str!("../../docs/api/openapi.json");

/// The description of the API.
struct Description(Value);

impl Description {
    fn read() -> Self {
        Self(serde_json::from_str(DESCRIPTION).unwrap())
    }

    /// The schema of the successful answer to a request.
    fn of(&self, method: &str, path: &str) -> &Value {
        let content = &self.0["paths"][path][method]["responses"]["200"]["content"];
        let mut types = content.as_object().unwrap_or_else(|| panic!("{method} {path}")).values();
        &types.next().unwrap()["schema"]
    }

    fn fits(&self, schema: &Value, value: &Value) -> Result<(), String> {
        if let Some(reference) = schema["$ref"].as_str() {
            return self.fits(self.0.pointer(&reference[1..]).unwrap(), value);
        }
        if let Some(choices) = schema["oneOf"].as_array() {
            let fit = choices.iter().filter(|choice| self.fits(choice, value).is_ok()).count();
            return if fit == 1 { Ok(()) } else { Err(format!("{fit} of oneOf fit {value}")) };
        }
        if let Some(choices) = schema["enum"].as_array() {
            return if choices.contains(value) {
                Ok(())
            } else {
                Err(format!("{value} is no choice"))
            };
        }
        let kind = match value {
            Value::Null => "null",
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Object(_) => "object",
        };
        let kinds = match &schema["type"] {
            Value::Array(kinds) => kinds.clone(),
            kind => vec![kind.clone()],
        };
        if !kinds.iter().any(|known| known == kind || (known == "number" && kind == "integer")) {
            return Err(format!("{value} is no {kinds:?}"));
        }
        for item in value.as_array().into_iter().flatten() {
            self.fits(&schema["items"], item)?;
        }
        self.has_all_fields(schema, value)
    }

    /// An object has the fields that are described, all of them and no other.
    fn has_all_fields(&self, schema: &Value, value: &Value) -> Result<(), String> {
        let (Some(described), Some(fields)) = (schema["properties"].as_object(), value.as_object())
        else {
            return Ok(());
        };
        let required: Vec<_> = schema["required"].as_array().into_iter().flatten().collect();
        if let Some(name) = described.keys().find(|name| !fields.contains_key(*name)) {
            return Err(format!("{name} is described and not in {value}"));
        }
        for (name, field) in fields {
            let schema = described.get(name).ok_or_else(|| format!("{name} is not described"))?;
            if !required.iter().any(|required| *required == name) {
                return Err(format!("{name} is always there, and not said to be"));
            }
            self.fits(schema, field).map_err(|error| format!("{name}: {error}"))?;
        }
        Ok(())
    }
}

#[track_caller]
fn assert_described(proxy: &Proxy, method: &str, path: &str, template: &str) -> Value {
    let request = Request::new(&method.to_uppercase(), path);
    let answer = proxy.operator().send(&request).unwrap();
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    let description = Description::read();
    let schema = description.of(method, template);
    let mut last = Value::Null;
    for line in answer.text().lines() {
        last = serde_json::from_str(line).unwrap();
        let fits = description.fits(schema, &last);
        assert!(fits.is_ok(), "{method} {path}: {}", fits.unwrap_err());
    }
    last
}

#[test]
fn every_answer_has_the_fields_that_are_described() {
    let (_registry, proxy, _) = one_layer(300_000);
    pull(&proxy, ALPINE, "1");
    for path in [
        "stats",
        "blobs",
        "fetches",
        "config",
        "images",
        "about",
        "registries",
        "requests",
        "errors",
        "repositories",
        "history",
        "peers",
    ] {
        let path = format!("/api/v1/{path}");
        assert_described(&proxy, "get", &path, &path);
    }
    let explained = "/api/v1/explain?image=alpine:1";
    assert_described(&proxy, "get", explained, "/api/v1/explain");
    assert_described(&proxy, "post", "/api/v1/pull?image=alpine:1", "/api/v1/pull");
    assert_described(&proxy, "post", "/api/v1/verify", "/api/v1/verify");
    let (image, template) = ("/api/v1/images/docker.io/library/alpine:1", "/api/v1/images/{name}");
    assert_described(&proxy, "get", image, template);
    for method in ["put", "delete"] {
        assert_described(&proxy, method, &format!("{image}/pin"), &format!("{template}/pin"));
    }
    assert_described(&proxy, "post", "/api/v1/reload", "/api/v1/reload");
    let several = "/api/v1/images?name=alp*&name=ghcr.io/&dry_run=true";
    let foreseen = assert_described(&proxy, "delete", several, "/api/v1/images");
    assert_eq!((&foreseen["objects"], &foreseen["is_dry_run"]), (&3.into(), &true.into()));
    let removed = assert_described(&proxy, "delete", image, template);
    assert_eq!(removed["objects"], 3);
}

#[test]
fn the_comparison_finds_what_is_wrong() {
    let description = Description(serde_json::json!({ "a": { "type": "object",
        "properties": { "n": { "type": ["integer", "null"] } }, "required": ["n"] } }));
    let schema = serde_json::json!({ "$ref": "#/a" });
    let fits = |value| description.fits(&schema, &value).is_ok();
    assert!(fits(serde_json::json!({ "n": 1 })) && fits(serde_json::json!({ "n": null })));
    for wrong in [
        serde_json::json!({}),
        serde_json::json!({ "n": "1" }),
        serde_json::json!([]),
        serde_json::json!({ "n": 1, "m": 2 }),
    ] {
        assert!(!fits(wrong.clone()), "{wrong}");
    }
}
