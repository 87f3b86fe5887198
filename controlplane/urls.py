"""Every address of the control plane. The API of each app hangs below /api/v1/."""

from django.urls import include, path
from drf_spectacular.views import SpectacularAPIView, SpectacularSwaggerSplitView

import controlplane.schema  # noqa: F401 -- registers how the schema tells of our classes
from controlplane import health, metrics
from enforcement.api.receivers import OtlpTracesView

handler400 = "controlplane.problems.bad_request"
handler404 = "controlplane.problems.not_found"
handler500 = "controlplane.problems.server_error"

urlpatterns = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    path("v1/traces", OtlpTracesView.as_view(), name="otlp-traces"),
    path("api/v1/", include("controlplane.identity.api.urls")),
    path("api/v1/", include("controlplane.duties.api.urls")),
    path("api/v1/", include("budgets.api.urls")),
    path("api/v1/", include("enforcement.api.urls")),
    path("api/v1/", include("skills.api.urls")),
    path("", include("controlplane.dashboard.urls")),
    path("", include("controlplane.duties.dashboard.urls")),
    path("", include("budgets.dashboard.urls")),
    path("", include("enforcement.dashboard.urls")),
    path("", include("skills.dashboard.urls")),
]
