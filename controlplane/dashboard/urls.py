from django.urls import path

from controlplane.dashboard import live, organization, overview, preferences, session, trail

urlpatterns = [
    path("", overview.overview, name="overview"),
    path("sign-in/", session.sign_in, name="sign-in"),
    path("sign-in/<str:secret>/", session.one_time, name="sign-in-link"),
    path("sign-out/", session.sign_out, name="sign-out"),
    path("live/", live.live, name="live"),
    path("audit/", trail.trail, name="audit"),
    path("audit/export.csv", trail.export, name="audit-export"),
    path("settings/", organization.settings, name="settings"),
    path("settings/people/", organization.person_add, name="person-add"),
    path("settings/people/<uuid:person_id>/link/", organization.person_link, name="person-link"),
    path("settings/people/<uuid:person_id>/role/", organization.person_role, name="person-role"),
    path(
        "settings/people/<uuid:person_id>/remove/",
        organization.person_remove,
        name="person-remove",
    ),
    path("settings/organization/", organization.organization_change, name="organization-change"),
    path("settings/tokens/", organization.token_issue, name="token-issue"),
    path("settings/tokens/<uuid:token_id>/revoke/", organization.token_revoke, name="token-revoke"),
    path("preferences/theme/", preferences.theme, name="theme"),
    path("preferences/organization/", preferences.organization, name="choose-organization"),
]
