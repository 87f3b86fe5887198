"""Every address of the control plane. The API of each app hangs below /api/v1/."""

from importlib.util import find_spec

from django.urls import URLPattern, URLResolver, include, path
from drf_spectacular.views import (
    SpectacularAPIView,
    SpectacularSwaggerSplitView,
)

from controlplane import health, metrics, schema  # noqa: F401 -- schema registers itself

API_APPS = ("controlplane.identity", "budgets", "enforcement", "skills")
PAGE_APPS = ("controlplane", "budgets", "enforcement", "skills")

handler404 = "controlplane.problems.not_found"
handler500 = "controlplane.problems.server_error"


def _present(module: str) -> bool:
    return find_spec(module) is not None


urlpatterns: list[URLPattern | URLResolver] = [
    path("healthz", health.healthz, name="healthz"),
    path("readyz", health.readyz, name="readyz"),
    path("metrics", metrics.metrics, name="metrics"),
    path("api/schema", SpectacularAPIView.as_view(), name="schema"),
    path("api/docs", SpectacularSwaggerSplitView.as_view(url_name="schema"), name="api-docs"),
    *[
        path("api/v1/", include(f"{app}.api.urls"))
        for app in API_APPS
        if _present(f"{app}.api.urls")
    ],
    *[
        path("", include(f"{app}.dashboard.urls"))
        for app in PAGE_APPS
        if _present(f"{app}.dashboard.urls")
    ],
]
