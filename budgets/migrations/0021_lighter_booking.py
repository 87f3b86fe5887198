from pathlib import Path

import django.contrib.postgres.indexes
from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0020_usage_archive'),
    ]

    operations = [
        migrations.RemoveIndex(
            model_name='usageevent',
            name='usage_by_receipt',
        ),
        migrations.AddIndex(
            model_name='usageevent',
            index=django.contrib.postgres.indexes.BrinIndex(autosummarize=True, fields=['received_at'], name='usage_by_receipt'),
        ),
        migrations.RunSQL(
            (HERE / "0021_lighter_booking.sql").read_text(),
            (HERE / "0021_lighter_booking_reverse.sql").read_text(),
        ),
    ]
