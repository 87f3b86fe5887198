from pathlib import Path

from django.db import migrations, models


HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0009_delegations'),
    ]

    operations = [
        migrations.AddField(
            model_name='ledgerincarnation',
            name='system_identifier',
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='ledgerincarnation',
            name='timeline',
            field=models.CharField(blank=True, default='', max_length=8),
        ),
        migrations.RunSQL(
            (HERE / "0010_adoption.sql").read_text(),
            (HERE / "0010_adoption_reverse.sql").read_text(),
        ),
    ]
