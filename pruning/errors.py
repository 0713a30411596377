"""The one exception type that reaches a user, and the table of every code it may carry.

A code is a contract: once released it keeps its meaning. `where` names the place (a spec field as
a dotted path, a layer, a tensor, an operator); `hint` says what to do next. Torch-free.
"""

from typing import Any

# code -> (HTTP status when it reaches a user over HTTP, short title)
CODES: dict[str, tuple[int, str]] = {
    # requests
    "invalid_request": (422, "The request is not valid"),
    "invalid_json": (400, "The body is not JSON"),
    "invalid_cursor": (422, "The cursor is not one this service gave out"),
    "unauthenticated": (401, "No valid API key"),
    "forbidden": (403, "This key may not do that"),
    "not_found": (404, "No such thing here"),
    "method_not_allowed": (405, "This method is not offered here"),
    "not_acceptable": (406, "No representation of that kind"),
    "conflict": (409, "The current state does not allow that"),
    "idempotency_mismatch": (409, "The idempotency key was used for a different request"),
    "in_use": (409, "Still in use"),
    "too_large": (413, "The body is over the limit"),
    "too_many_jobs": (429, "Too many jobs are waiting"),
    "unsupported_format": (415, "Not a format that is read here"),
    "range_not_satisfiable": (416, "The range lies outside the file"),
    "upload_incomplete": (400, "The body ended early"),
    "upload_empty": (400, "The body is empty"),
    "digest_mismatch": (400, "The bytes do not have the digest that was announced"),
    "multipart_invalid": (400, "The multipart body is malformed"),
    "not_ready": (409, "Not ready yet"),
    "model_rejected": (409, "The model was rejected at intake"),
    "dataset_rejected": (409, "The dataset was rejected at intake"),
    "unavailable": (503, "A part of the service is not reachable"),
    "overloaded": (503, "The service takes no more of that at the moment"),
    "database_busy": (503, "The database is busy"),
    "storage_full": (507, "There is no room to store it"),
    "file_damaged": (500, "A stored file is damaged"),
    "too_many_requests": (429, "Too many requests"),
    "too_many_keys": (409, "The project has as many keys as it may"),
    "request_malformed": (400, "Not one HTTP request"),
    "head_too_large": (431, "The head of the request is over the limit"),
    "request_timeout": (408, "The request took too long to arrive"),
    "internal_error": (500, "An error on our side"),
    # spec
    "spec_invalid": (422, "The spec is not valid"),
    "spec_conflict": (422, "Two parts of the spec exclude each other"),
    "not_available": (422, "Named in the design, not built yet"),
    "metric_meaningless": (422, "A metric can't tell anything on this model or data"),
    "labels_missing": (422, "The method needs labels that the data lack"),
    "rewind_invalid": (422, "The earlier checkpoint does not fit"),
    "scope_empty": (422, "Nothing left to prune"),
    "target_unreachable": (422, "The target can't be met"),
    "curvature_too_large": (422, "The curvature asked for is too large"),
    # models
    "model_unreadable": (422, "The file can't be parsed"),
    "model_truncated": (422, "The file ends early"),
    "model_invalid": (422, "The graph is not valid"),
    "model_too_large": (422, "The model is over the limit"),
    "operator_unsupported": (422, "The graph uses an operator that is not read"),
    "operator_attribute_unsupported": (422, "An operator is used in a way that is not read"),
    "opset_unsupported": (422, "The opset is outside the range that is read"),
    "external_data": (422, "Files that hold the weights are missing, or not as the model says"),
    "model_pickled": (422, "The model holds pickled objects"),
    "weights_non_finite": (422, "A weight is NaN or infinite"),
    "module_unsupported": (422, "The module is of a kind that can't be pruned"),
    "module_failed": (422, "The module can't be run on the data"),
    "outputs_vary": (422, "The module gives different outputs for the same samples"),
    "weights_computed": (422, "A weight is computed from other tensors"),
    "weights_overlap": (422, "Tensors share part of their memory"),
    "no_prunable_layers": (422, "The model has no layer that can be pruned"),
    # data
    "data_unreadable": (422, "The data can't be parsed"),
    "data_pickled": (422, "An array holds pickled objects"),
    "data_non_finite": (422, "The data hold NaN or infinity"),
    "data_names": (422, "The arrays are not named after the model's inputs"),
    "data_shape": (422, "An array's shape does not fit the model"),
    "data_values": (422, "The network can't be computed for numbers of the data"),
    "data_dtype": (422, "An array's type does not fit the model"),
    "data_empty": (422, "There are too few samples"),
    "data_too_large": (422, "The unpacked data are over the limit"),
    "target_invalid": (422, "The labels do not fit the model's output"),
    "sample_axis_unknown": (422, "Which axis of an input holds the samples can't be told"),
    "samples_mixed": (422, "A sample's result depends on the other samples"),
    # running
    "factorization_failed": (422, "The curvature matrix can't be factorised"),
    "mask_not_kept": (500, "A removed weight did not stay zero"),
    "gate_missed": (422, "The result misses a gate"),
    "loss_non_finite": (422, "The loss is not finite"),
    "verification_failed": (500, "The written file does not match the pruned network"),
    "out_of_memory": (422, "The job ran out of memory"),
    "thread_limit": (422, "The job started too many threads"),
    "wall_limit": (422, "The job ran out of time"),
    "stalled": (500, "The job made no progress"),
    "child_crashed": (500, "The job's process died"),
    "sandbox_unavailable": (500, "The sandbox that is required can't be had"),
    "attempts_exhausted": (500, "Given up after repeated attempts"),
    "cancelled": (409, "Cancelled"),
    # client
    "connection_failed": (503, "The service can't be reached"),
    "usage": (422, "The command was not understood"),
    "package_missing": (500, "An optional package is not installed"),
}


class SecateurError(Exception):
    """Something a user can act on.

    Args:
        code: A key of `CODES`.
        message: One or two plain sentences: what is wrong, with the values that made it so.
        where: The place: a spec field (`criterion.block`), a layer, a tensor, an operator.
        hint: What to do next.
        details: Further JSON values for programs, kept under `details`.
    """

    def __init__(
        self,
        code: str,
        message: str,
        *,
        where: str | None = None,
        hint: str | None = None,
        **details: Any,
    ) -> None:
        if code not in CODES:
            raise ValueError(f"unknown error code {code!r}: add it to pruning.errors.CODES")
        super().__init__(message)
        self.code, self.message, self.where, self.hint = code, message, where, hint
        self.details = details

    @property
    def status(self) -> int:
        """HTTP status of the code."""
        return CODES[self.code][0]

    @property
    def title(self) -> str:
        """Short title of the code."""
        return CODES[self.code][1]

    def as_dict(self) -> dict[str, Any]:
        """The error as JSON values; keys without a value are left out."""
        fields = {
            "code": self.code,
            "message": self.message,
            "where": self.where,
            "hint": self.hint,
            "details": self.details or None,
        }
        return {k: v for k, v in fields.items() if v is not None}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> "SecateurError":
        """The inverse of `as_dict`; an unknown code becomes `internal_error`."""
        code = data.get("code", "internal_error")
        return cls(
            code if code in CODES else "internal_error",
            data.get("message", "unknown error"),
            where=data.get("where"),
            hint=data.get("hint"),
            **(data.get("details") or {}),
        )

    def __str__(self) -> str:
        place = f" [{self.where}]" if self.where else ""
        advice = f" {self.hint}" if self.hint else ""
        return f"{self.code}{place}: {self.message}{advice}"
