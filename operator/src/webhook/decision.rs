//! What is answered to a request.

use json_patch::PatchOperation;
use kube::Resource;
use kube::core::DynamicObject;
use kube::core::admission::{AdmissionRequest, AdmissionResponse, AdmissionReview, SerializePatchError};

/// kubectl shows no more of a warning.
const WARNING_CHARS_MAX: usize = 256;

/// An answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decision {
    /// Go on.
    Allow {
        /// With these changes.
        patch: Vec<PatchOperation>,
        /// And tell the author this.
        warnings: Vec<String>,
    },
    /// No.
    Deny {
        /// In a word.
        reason: &'static str,
        /// And what to do about it.
        message: String,
    },
}

impl Decision {
    /// Go on as it is.
    pub fn allow() -> Self {
        Self::Allow {
            patch: Vec::new(),
            warnings: Vec::new(),
        }
    }

    /// Go on as it is, and tell the author this.
    pub fn warn(warnings: Vec<String>) -> Self {
        Self::Allow {
            patch: Vec::new(),
            warnings,
        }
    }

    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Self::Allow { .. })
    }

    /// The answer to that request as the API server reads it.
    pub fn into_review<T: Resource>(
        self,
        request: &AdmissionRequest<T>,
    ) -> Result<AdmissionReview<DynamicObject>, SerializePatchError> {
        let mut response = AdmissionResponse::from(request);
        match self {
            Self::Allow { patch, warnings } => {
                if !warnings.is_empty() {
                    response.warnings = Some(warnings.into_iter().map(shortened).collect());
                }
                if !patch.is_empty() {
                    response = response.with_patch(json_patch::Patch(patch))?;
                }
            }
            Self::Deny { reason, message } => {
                response = response.deny(format!("{reason}: {message}"));
                (response.result.code, response.result.reason) = (403, "Forbidden".to_owned());
            }
        }
        Ok(response.into_review())
    }
}

fn shortened(warning: String) -> String {
    if warning.chars().count() <= WARNING_CHARS_MAX {
        return warning;
    }
    let kept = warning.chars().take(WARNING_CHARS_MAX - 1);
    kept.chain(['…']).collect()
}
