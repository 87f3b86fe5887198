from django.urls import path

from skills.dashboard import views

app_name = "skills"

urlpatterns = [
    path("skills/", views.skill_list, name="list"),
    path("skills/import/", views.skill_import, name="import"),
    path("skills/requirement/", views.requirement_switch, name="requirement"),
    path("skills/trust-roots/<uuid:root_id>/", views.root_switch, name="trust-root"),
    path("skills/cards/<uuid:card_id>/", views.card_detail, name="card"),
    path("skills/cards/<uuid:card_id>/envelope/", views.card_envelope, name="envelope"),
    path("skills/cards/<uuid:card_id>/revoke/", views.card_revoke, name="card-revoke"),
    path("skills/cards/<uuid:card_id>/grant/", views.card_grant, name="card-grant"),
    path("skills/grants/<uuid:grant_id>/revoke/", views.grant_revoke, name="grant-revoke"),
    path("skills/<uuid:skill_id>/", views.skill_detail, name="detail"),
    path("skills/<uuid:skill_id>/verify/", views.skill_verify, name="verify"),
    path("skills/<uuid:skill_id>/sign/", views.card_sign, name="sign"),
]
