from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0018_usage_cells'),
    ]

    operations = [
        migrations.AddIndex(
            model_name='usageevent',
            index=models.Index(condition=models.Q(('price_version', None)), fields=['organization', '-started_at'], name='usage_without_price'),
        ),
    ]
