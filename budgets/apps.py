from django.apps import AppConfig


class BudgetsConfig(AppConfig):
    name = "budgets"
    label = "budgets"
    default_auto_field = "django.db.models.BigAutoField"
    verbose_name = "Budgets and ledger"
