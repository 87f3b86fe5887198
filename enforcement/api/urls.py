from django.urls import URLPattern, URLResolver, path
from rest_framework.routers import SimpleRouter

from enforcement.api import efficiency, nodes, receivers, reconciliation, views
from enforcement.api.exposure import ExposureView
from enforcement.api.noderates import MeasureViews

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("orders", views.OrderViews, basename="order")
router.register("sidecars", views.SidecarViews, basename="sidecar")
router.register("spools", views.SpoolViews, basename="spool")

urlpatterns: list[URLPattern | URLResolver] = [
    *[
        path(
            f"agents/<uuid:agent_id>/{kind}",
            views.AgentOrderViews.as_view({"post": kind}),
            name=f"agent-{kind}",
        )
        for kind in ("kill", "pause", "throttle", "resume")
    ],
    path("budgets/<uuid:budget_id>/exposure", ExposureView.as_view(), name="budget-exposure"),
    path(
        "prices/measure",
        MeasureViews.as_view({"post": "measure"}),
        name="prices-measure",
    ),
    path("usage/litellm", receivers.LiteLLMView.as_view(), name="usage-litellm"),
    path("usage/webhook", receivers.WebhookView.as_view(), name="usage-webhook"),
    *router.urls,
    *nodes.urlpatterns,
    *reconciliation.router.urls,
    *efficiency.router.urls,
]
