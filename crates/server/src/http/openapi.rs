//! The `OpenAPI` document of the listener, made from the table of its routes.

use std::sync::LazyLock;

use axum::http::header::CONTENT_TYPE;
use axum::response::IntoResponse;
use serde_json::{Map, Value, json};

use super::routes::{self, Route};

/// The document.
pub(super) async fn answer() -> impl IntoResponse {
    static DOCUMENT: LazyLock<String> = LazyLock::new(|| document().to_string());
    ([(CONTENT_TYPE, "application/json")], DOCUMENT.as_str())
}

fn document() -> Value {
    let mut paths = Map::new();
    for route in routes::table().iter().chain(&predict()) {
        let of_path = paths.entry(route.path).or_insert_with(|| json!({}));
        of_path[route.method] = operation(route);
    }
    json!({
        "openapi": "3.1.0",
        "info": { "title": "Volley", "version": env!("CARGO_PKG_VERSION"), "license": { "name": "MIT OR Apache-2.0" } },
        "paths": paths,
        "components": { "schemas": schemas() },
    })
}

/// V1's inference: the router's paths have no place for a suffix, and need none, because hyper's service answers it.
fn predict() -> Option<Route> {
    let handler = axum::routing::post(|| async {});
    let route = Route::post("/v1/models/{model}:predict", "Ask a model, as V1 has it", handler);
    Some(route.takes("V1Request").gives("V1Response").refuses(&[400, 404, 413, 415, 500, 503, 504]))
}

fn operation(route: &Route) -> Value {
    let content = |schema: &str| json!({ "application/json": { "schema": reference(schema) } });
    let mut responses = Map::new();
    let well = match route.gives {
        Some(schema) => json!({ "description": "The answer", "content": content(schema) }),
        None => json!({ "description": "Yes, or done" }),
    };
    responses.insert("200".to_owned(), well);
    for status in route.refuses {
        // What is not ready says so as it would say that it is.
        let unready = route.gives.filter(|_| *status == 503 && route.method == "get");
        let refusal = json!({ "description": "A refusal", "content": content(unready.unwrap_or("Error")) });
        responses.insert(status.to_string(), refusal);
    }
    let mut operation = json!({ "summary": route.does, "responses": responses });
    let names = route.path.split('{').skip(1).filter_map(|rest| Some(rest.split_once('}')?.0));
    let parameters: Vec<Value> = names
        .map(|name| json!({ "name": name, "in": "path", "required": true, "schema": { "type": "string", "minLength": 1 } }))
        .collect();
    if !parameters.is_empty() {
        operation["parameters"] = parameters.into();
    }
    if let Some(schema) = route.takes {
        // Inference asks for something; the others may be asked without a body.
        let required = route.gives.is_some_and(|schema| schema.ends_with("Response"));
        operation["requestBody"] = json!({ "required": required, "content": content(schema) });
    }
    operation
}

fn reference(schema: &str) -> Value {
    json!({ "$ref": format!("#/components/schemas/{schema}") })
}

/// An object of these members, of which the first `required` must be there.
fn object(required: usize, members: &[(&str, Value)]) -> Value {
    let names: Vec<&str> = members.iter().take(required).map(|(name, _)| *name).collect();
    let members: Map<String, Value> =
        members.iter().map(|(name, schema)| ((*name).to_owned(), schema.clone())).collect();
    json!({ "type": "object", "required": names, "properties": members })
}

fn list(items: &Value) -> Value {
    json!({ "type": "array", "items": items })
}

fn schemas() -> Value {
    let text = json!({ "type": "string" });
    let count = json!({ "type": "integer", "minimum": 0 });
    let yes = json!({ "type": "boolean" });
    let any = json!({ "type": "object" });
    let absent = |schema: Value| json!({ "anyOf": [schema, { "type": "null" }] });
    let values = json!({ "type": "array", "description": "Values in C order, flat or nested as the shape" });
    let shape = list(&json!({ "type": "integer" }));
    let typed = json!({ "enum": ["BOOL", "UINT8", "UINT16", "UINT32", "UINT64", "INT8", "INT16", "INT32", "INT64", "FP16", "FP32", "FP64", "BF16"] });
    let tensor = |size: Value| {
        let parameters = absent(object(0, &[("binary_data_size", size)]));
        let members = [
            ("name", text.clone()),
            ("shape", list(&count)),
            ("datatype", typed.clone()),
            ("data", values.clone()),
            ("parameters", parameters),
        ];
        object(3, &members)
    };
    let parameters = object(
        0,
        &[
            (
                "priority",
                json!({ "anyOf": [{ "type": "integer", "minimum": 0, "maximum": 4 }, { "enum": ["critical", "high", "normal", "low"] }, { "type": "null" }], "description": "1 is the highest, 0 the default" }),
            ),
            (
                "timeout",
                json!({ "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX, "description": "Microseconds from the request's arrival; 0 for none" }),
            ),
            (
                "cache",
                json!({ "type": ["boolean", "null"], "description": "False neither reads nor fills the result cache" }),
            ),
            ("variant", json!({ "type": ["string", "null"] })),
            ("use_ensemble", json!({ "type": ["boolean", "null"] })),
            ("return_uncertainty", json!({ "type": ["boolean", "null"] })),
            ("binary_data_output", json!({ "type": ["boolean", "null"] })),
        ],
    );
    let wanted = object(
        1,
        &[
            ("name", text.clone()),
            ("parameters", absent(object(0, &[("binary_data", json!({ "type": ["boolean", "null"] }))]))),
        ],
    );
    let described = object(3, &[("name", text.clone()), ("datatype", typed.clone()), ("shape", shape)]);
    let configured = object(3, &[("name", text.clone()), ("data_type", text.clone()), ("dims", list(&count))]);
    let tally = object(2, &[("count", count.clone()), ("ns", count.clone())]);
    let counted =
        ["success", "fail", "queue", "compute_input", "compute_infer", "compute_output", "cache_hit", "cache_miss"];
    let requests = object(counted.len(), &counted.map(|name| (name, tally.clone())));
    let batches = object(
        4,
        &[
            ("batch_size", count.clone()),
            ("compute_input", tally.clone()),
            ("compute_infer", tally.clone()),
            ("compute_output", tally),
        ],
    );
    let statistics = object(
        7,
        &[
            ("name", text.clone()),
            ("version", text.clone()),
            ("last_inference", count.clone()),
            ("inference_count", count.clone()),
            ("execution_count", count.clone()),
            ("inference_stats", requests),
            ("batch_stats", list(&batches)),
        ],
    );
    json!({
        "Error": object(1, &[("error", text.clone())]),
        "Document": any,
        "ServerMetadata": object(3, &[("name", text.clone()), ("version", text.clone()), ("extensions", list(&text))]),
        "ModelMetadata": object(5, &[
            ("name", text.clone()), ("versions", list(&text)), ("platform", text.clone()),
            ("inputs", list(&described)), ("outputs", list(&described)),
        ]),
        "ModelConfig": object(7, &[
            ("name", text.clone()), ("platform", text.clone()), ("backend", text.clone()), ("max_batch_size", count.clone()),
            ("input", list(&configured)), ("output", list(&configured)), ("dynamic_batching", any.clone()),
        ]),
        "Statistics": object(1, &[("model_stats", list(&statistics))]),
        "InferRequest": object(1, &[
            ("inputs", list(&tensor(json!({ "type": ["integer", "null"], "minimum": 0, "maximum": u64::MAX })))), ("id", json!({ "type": ["string", "null"] })),
            ("parameters", absent(parameters.clone())), ("outputs", absent(list(&wanted))),
        ]),
        "InferResponse": object(3, &[
            ("model_name", text.clone()), ("model_version", text.clone()), ("outputs", list(&tensor(json!({ "type": "integer" })))),
            ("id", text.clone()), ("parameters", any),
        ]),
        "V1Models": object(1, &[("models", list(&text))]),
        "Alive": object(1, &[("status", json!({ "enum": ["alive"] }))]),
        "Live": object(1, &[("live", yes.clone())]),
        "Ready": object(1, &[("ready", yes.clone())]),
        "ModelReady": object(2, &[("name", text.clone()), ("ready", yes.clone())]),
        "V1Request": object(0, &[
            ("instances", json!({ "type": "array", "minItems": 1 })), ("inputs", json!({ "type": ["array", "object"] })),
            ("parameters", absent(parameters)),
        ]),
        "V1Response": object(0, &[("predictions", json!({ "type": "array" })), ("outputs", json!({ "type": ["array", "object"] }))]),
        "IndexRequest": object(0, &[("repository_name", text.clone()), ("ready", yes)]),
        "Index": list(&object(3, &[
            ("name", text.clone()), ("state", json!({ "enum": ["READY", "UNAVAILABLE"] })), ("reason", text.clone()), ("version", text),
        ])),
        "LoadRequest": object(0, &[("parameters", json!({ "type": "object", "maxProperties": 0 }))]),
        "UnloadRequest": object(0, &[("parameters", json!({ "type": "object" }))]),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_schema_that_a_route_names_is_there_and_every_schema_is_named() {
        let document = document().to_string();
        let schemas = schemas();
        let names: Vec<&String> = schemas.as_object().expect("an object").keys().collect();
        for name in &names {
            assert!(document.contains(&format!("schemas/{name}\"")), "{name} is named by no route");
        }
        for route in routes::table().iter().chain(&predict()) {
            for schema in route.takes.iter().chain(&route.gives) {
                assert!(names.iter().any(|name| name == schema), "{} names {schema}", route.path);
            }
        }
    }
}
