from django.urls import path
from rest_framework.routers import SimpleRouter

from controlplane.identity.api import people, views

router = SimpleRouter(trailing_slash=False, use_regex_path=False)
router.register("teams", views.TeamViews, basename="team")
router.register("projects", views.ProjectViews, basename="project")
router.register("agents", views.AgentViews, basename="agent")
router.register("agent-keys", views.AgentKeyViews, basename="agent-key")
router.register("people", people.PersonViews, basename="person")
router.register("api-tokens", people.ApiTokenViews, basename="api-token")
router.register("audit-entries", people.AuditEntryViews, basename="audit-entry")

urlpatterns = [
    path(
        "organization",
        views.CurrentOrganizationViews.as_view({"get": "read", "patch": "change"}),
        name="organization",
    ),
    path("me", views.MeViews.as_view({"get": "read"}), name="me"),
    path("me/password", people.PasswordViews.as_view({"put": "change"}), name="me-password"),
    path(
        "agents/<uuid:agent_id>/keys",
        views.KeysOfAgentViews.as_view({"get": "list", "post": "create"}),
        name="keys-of-agent",
    ),
    *router.urls,
]
