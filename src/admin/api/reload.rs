//! `POST /api/v1/reload`: the configuration is read again, and put into force if it is valid.

use http::{HeaderValue, Response, StatusCode, header};
use serde_json::{Value, json};

use super::super::AdminServices;
use super::super::body::AdminBody;
use super::super::pages::refused;
use super::super::reload::ReloadRefusal;
use crate::gateway::ResponseBody;

/// What is in force then, or all that is wrong.
pub(super) async fn reload(services: &AdminServices) -> Response<AdminBody> {
    match services.reloads.ask().await {
        Some(Ok(reloaded)) => super::json(&json!(reloaded)),
        Some(Err(refusal)) => not_valid(&refusal),
        None => {
            let reason = "the proxy is ending: its configuration is not read again";
            refused(StatusCode::SERVICE_UNAVAILABLE, reason).map(Into::into)
        }
    }
}

/// As other errors are told, one for each thing that is wrong.
fn not_valid(ReloadRefusal(problems): &ReloadRefusal) -> Response<AdminBody> {
    let errors: Vec<Value> = problems
        .iter()
        .map(|problem| json!({ "code": "UNSUPPORTED", "message": problem }))
        .collect();
    let document = json!({ "errors": errors });
    let body = ResponseBody::full(format!("{document}\n"));
    let mut response = Response::new(AdminBody::Whole(body));
    *response.status_mut() = StatusCode::UNPROCESSABLE_ENTITY;
    let media_type = HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, media_type);
    response
}
