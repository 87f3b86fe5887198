from django.db import migrations, models


class Migration(migrations.Migration):

    dependencies = [
        ('enforcement', '0002_append_only'),
    ]

    operations = [
        migrations.AddField(
            model_name='spool',
            name='waived_for',
            field=models.UUIDField(blank=True, null=True),
        ),
    ]
