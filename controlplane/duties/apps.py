from django.apps import AppConfig


class DutiesConfig(AppConfig):
    name = "controlplane.duties"
    label = "duties"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Background work"
