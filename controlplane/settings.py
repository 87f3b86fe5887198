"""Settings of the control plane. Everything that differs between installations is environment."""

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from controlplane.env import database_settings, env_bool, env_int, env_secret, env_text
from controlplane.logs import logging_settings
from enforcement.rules.billplan import bill_plans
from enforcement.rules.explain import Fate
from enforcement.rules.policy import OrderKind, ScopeKind
from enforcement.rules.reports.call import address_of

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent

# ------------------------------------------------------------------------------- environment

SECRET_KEY = env_secret("COMPTROLLER_SECRET_KEY")
DEBUG = env_bool("COMPTROLLER_DEBUG")
PUBLIC_URL = env_text("COMPTROLLER_PUBLIC_URL", default="http://127.0.0.1:8300").rstrip("/")
SIDECAR_URL = env_text("COMPTROLLER_SIDECAR_URL", default="http://127.0.0.1:8400").rstrip("/")
METRICS_TOKEN = env_secret("COMPTROLLER_METRICS_TOKEN")
DATA_DIR = env_text("COMPTROLLER_DATA_DIR")
# As long as the longest request that any sidecar allows: permits of a dead one wait for it.
LONGEST_REQUEST_S = env_int("COMPTROLLER_LONGEST_REQUEST_S", default=600, minimum=1)
GATHER_EVERY_S = env_int("COMPTROLLER_GATHER_EVERY_S", default=5, minimum=5)  # of a serving node
# Where serving nodes are found (`enforcement.domain.places`), and the slug of whose they are.
NODES_FROM = tuple(env_text("COMPTROLLER_NODES_FROM").split())
NODES_ORGANIZATION = env_text("COMPTROLLER_NODES_ORGANIZATION")
# What metered use and an engine's count may differ by in an hour, before it is called drift.
DRIFT_PER_MILLE = env_int("COMPTROLLER_DRIFT_PER_MILLE", default=5)
DRIFT_FLOOR_TOKENS = env_int("COMPTROLLER_DRIFT_FLOOR_TOKENS", default=50)
# Whose bills are asked for once a day, and the slug of the organization that they are for.
BILLS = bill_plans(env_text("COMPTROLLER_BILLS"))
BILLS_ORGANIZATION = env_text("COMPTROLLER_BILLS_ORGANIZATION")
REPORTS_PER_MINUTE = env_int("COMPTROLLER_REPORTS_PER_MINUTE", default=1200, minimum=1)
# Where callers reach sidecars, as host:port. What was sent there, a sidecar tells of.
SIDECAR_ADDRESSES = frozenset(
    address_of(place.strip())
    for place in [SIDECAR_URL, *env_text("COMPTROLLER_SIDECAR_ADDRESSES").split(",")]
    if place.strip()
)
# Days of usage events that stay in the database before they become archives; 0: all, for ever.
USAGE_KEEP_DAYS = env_int("COMPTROLLER_USAGE_KEEP_DAYS", default=0, minimum=0)
ARCHIVE_DIR = env_text("COMPTROLLER_ARCHIVE_DIR")
BROKER_URL = env_secret("BROKER_URL", default="redis://127.0.0.1:6379/0")
DATABASES = {
    "default": database_settings(
        env_secret("DATABASE_URL", default="postgresql:///comptroller"),
        pool_size=env_int("COMPTROLLER_DATABASE_POOL", default=0),
    )
}

_public = urlsplit(PUBLIC_URL)
IS_HTTPS = _public.scheme == "https"
ALLOWED_HOSTS = [
    _public.hostname or "127.0.0.1",
    "127.0.0.1",
    "localhost",
    "[::1]",
    *filter(None, env_text("COMPTROLLER_ALLOWED_HOSTS").split(",")),
]
CSRF_TRUSTED_ORIGINS = [PUBLIC_URL]

# ------------------------------------------------------------------------------- program

INSTALLED_APPS = [
    "controlplane.audit",
    "controlplane.identity",
    "controlplane.duties",
    "controlplane.dashboard",
    "budgets",
    "skills",
    "enforcement",
    "rest_framework",
    "django_filters",
    "drf_spectacular",
    "drf_spectacular_sidecar",
    "django_htmx",
    "django.contrib.postgres",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.sessions",
    "django.contrib.messages",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "controlplane.middleware.RequestLogMiddleware",
    "django.middleware.security.SecurityMiddleware",
    "controlplane.csp.ContentSecurityPolicyMiddleware",
    "whitenoise.middleware.WhiteNoiseMiddleware",
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.common.CommonMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
    "django.middleware.clickjacking.XFrameOptionsMiddleware",
    "django_htmx.middleware.HtmxMiddleware",
]
ROOT_URLCONF = "controlplane.urls"
ASGI_APPLICATION = "controlplane.asgi.application"
WSGI_APPLICATION = "controlplane.wsgi.application"
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
TIME_ZONE = "UTC"
USE_TZ = True
LANGUAGE_CODE = "en-us"
USE_I18N = False
LOGGING_CONFIG = None
logging_settings(debug=DEBUG)

# A checkout has its templates at the top, a wheel carries them inside the package.
_TEMPLATE_PLACES = [ROOT / "templates", HERE / "_templates"]
TEMPLATES: list[dict[str, Any]] = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "DIRS": [place for place in _TEMPLATE_PLACES if place.is_dir()][:1],
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
                "controlplane.dashboard.context.page",
            ],
        },
    }
]

STATIC_URL = "/static/"
STATICFILES_DIRS = [HERE / "static"]
WHITENOISE_USE_FINDERS = True  # no collectstatic step: files are served out of the packages
WHITENOISE_AUTOREFRESH = DEBUG
WHITENOISE_MAX_AGE = 0 if DEBUG else 300

# ------------------------------------------------------------------------------- sign-in

AUTH_USER_MODEL = "identity.Person"
AUTHENTICATION_BACKENDS = ["controlplane.identity.backends.PasswordBackend"]
AUTH_PASSWORD_VALIDATORS = [
    {"NAME": "django.contrib.auth.password_validation.UserAttributeSimilarityValidator"},
    {
        "NAME": "django.contrib.auth.password_validation.MinimumLengthValidator",
        "OPTIONS": {"min_length": 12},
    },
    {"NAME": "django.contrib.auth.password_validation.CommonPasswordValidator"},
]
LOGIN_URL = "sign-in"
LOGIN_REDIRECT_URL = "/"
SESSION_COOKIE_NAME = "__Host-session" if IS_HTTPS else "comptroller_session"
SESSION_COOKIE_AGE = 12 * 3600
SESSION_COOKIE_HTTPONLY = True
SESSION_COOKIE_SAMESITE = "Lax"
SESSION_COOKIE_SECURE = IS_HTTPS
CSRF_COOKIE_NAME = "__Host-csrf" if IS_HTTPS else "comptroller_csrf"
CSRF_COOKIE_HTTPONLY = True
CSRF_COOKIE_SAMESITE = "Lax"
CSRF_COOKIE_SECURE = IS_HTTPS

# ------------------------------------------------------------------------------- headers

SECURE_CONTENT_TYPE_NOSNIFF = True
SECURE_REFERRER_POLICY = "same-origin"
SECURE_CROSS_ORIGIN_OPENER_POLICY = "same-origin"
SECURE_HSTS_SECONDS = 31_536_000 if IS_HTTPS else 0
SECURE_PROXY_SSL_HEADER = (
    ("HTTP_X_FORWARDED_PROTO", "https") if env_bool("COMPTROLLER_BEHIND_PROXY") else None
)
X_FRAME_OPTIONS = "DENY"
DATA_UPLOAD_MAX_MEMORY_SIZE = 10 * 1024 * 1024

# ------------------------------------------------------------------------------- REST API

REST_FRAMEWORK = {
    "DEFAULT_AUTHENTICATION_CLASSES": [
        "controlplane.api.TokenAuthentication",
        "controlplane.api.SessionAuthentication",
    ],
    "DEFAULT_PERMISSION_CLASSES": ["controlplane.api.RolePermission"],
    "DEFAULT_RENDERER_CLASSES": ["rest_framework.renderers.JSONRenderer"],
    "DEFAULT_PARSER_CLASSES": ["controlplane.api.StrictJSONParser"],
    "DEFAULT_PAGINATION_CLASS": "controlplane.api.CursorPagination",
    "DEFAULT_FILTER_BACKENDS": ["controlplane.api.StrictFilterBackend"],
    "DEFAULT_SCHEMA_CLASS": "drf_spectacular.openapi.AutoSchema",
    "EXCEPTION_HANDLER": "controlplane.problems.handle",
    "UNAUTHENTICATED_USER": None,
    "URL_FORMAT_OVERRIDE": None,
    "TEST_REQUEST_DEFAULT_FORMAT": "json",
    "DATETIME_FORMAT": "%Y-%m-%dT%H:%M:%S.%fZ",
}
SPECTACULAR_SETTINGS = {
    "TITLE": "Comptroller",
    "DESCRIPTION": "Budgets for AI agents that are never overspent.",
    "SERVERS": [{"url": "/"}],
    "VERSION": "1",
    "SERVE_INCLUDE_SCHEMA": False,
    "SERVE_PERMISSIONS": [],
    "SERVE_AUTHENTICATION": [],
    "SWAGGER_UI_DIST": "SIDECAR",
    "SWAGGER_UI_FAVICON_HREF": "SIDECAR",
    "SCHEMA_PATH_PREFIX": "/api/v1",
    "COMPONENT_SPLIT_REQUEST": True,
    "ENUM_GENERATE_CHOICE_DESCRIPTION": False,
    "ENUM_NAME_OVERRIDES": {
        "AgentState": "controlplane.identity.enums.State",
        "BudgetChangeKind": "budgets.enums.ChangeKind",
        "BudgetFate": [fate.value for fate in Fate],
        "BudgetScopeKind": [kind.value for kind in ScopeKind],
        "CardState": "skills.enums.CardState",
        "NodeState": "enforcement.enums.NodeState",
        "OrderKind": [kind.value for kind in OrderKind],
        "OrderScopeKind": [k.value for k in ScopeKind if k is not ScopeKind.SESSION],
        "PriceRuleKind": "budgets.enums.PriceRuleKind",
        "RevocationKind": "skills.enums.RevocationKind",
        "SkillState": "skills.enums.SkillState",
        "TokenKind": "controlplane.identity.enums.TokenKind",
    },
    "POSTPROCESSING_HOOKS": [
        "drf_spectacular.hooks.postprocess_schema_enums",
        "controlplane.schema.add_problems",
    ],
}
