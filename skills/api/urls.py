from django.urls import path
from rest_framework.routers import SimpleRouter

from skills.api import views

router = SimpleRouter(trailing_slash=False)
router.register("skills", views.SkillViews, basename="skill")
router.register("skill-cards", views.CardViews, basename="skill-card")
router.register("skill-grants", views.GrantViews, basename="skill-grant")
router.register("trust-roots", views.TrustRootViews, basename="trust-root")
router.register("skill-revocations", views.RevocationViews, basename="skill-revocation")
router.register("skill-signing-keys", views.SigningKeyViews, basename="skill-signing-key")

urlpatterns = [
    path(
        "skill-requirement",
        views.RequirementViews.as_view({"get": "read", "put": "write"}),
        name="skill-requirement",
    ),
    *router.urls,
]
