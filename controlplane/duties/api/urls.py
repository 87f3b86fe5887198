from rest_framework.routers import SimpleRouter

from controlplane.duties.api.views import LetterViews

router = SimpleRouter(trailing_slash=False)
router.register("dead-letters", LetterViews, basename="dead-letter")

urlpatterns = router.urls
