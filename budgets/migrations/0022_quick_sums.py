from pathlib import Path

from django.db import migrations

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0021_lighter_booking'),
    ]

    operations = [
        migrations.RunSQL(
            (HERE / "0022_quick_sums.sql").read_text(),
            (HERE / "0022_quick_sums_reverse.sql").read_text(),
        ),
    ]
