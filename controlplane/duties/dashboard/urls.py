from django.urls import path

from controlplane.duties.dashboard import views

app_name = "duties"
urlpatterns = [
    path("tasks/", views.tasks, name="tasks"),
    path("tasks/<uuid:letter_id>/", views.settle, name="settle"),
]
