from django.apps import AppConfig


class SkillsConfig(AppConfig):
    name = "skills"
    label = "skills"
    verbose_name = "Skill cards"
