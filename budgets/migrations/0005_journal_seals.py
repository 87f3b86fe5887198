from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0004_budget_scopes'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.RunSQL(
            "CREATE SEQUENCE budgets_transfer_sequence AS bigint",
            "DROP SEQUENCE IF EXISTS budgets_transfer_sequence",
        ),
        migrations.CreateModel(
            name='JournalSeal',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('number', models.BigIntegerField()),
                ('first', models.BigIntegerField()),
                ('last', models.BigIntegerField()),
                ('transfers', models.BigIntegerField()),
                ('content', models.BinaryField()),
                ('digest', models.BinaryField()),
                ('sealed_at', models.DateTimeField()),
            ],
        ),
        migrations.CreateModel(
            name='SealHorizon',
            fields=[
                ('id', models.SmallIntegerField(default=1, primary_key=True, serialize=False)),
                ('sealable', models.BigIntegerField(default=0)),
                ('pending', models.BigIntegerField(default=0)),
                ('pending_xid', models.BigIntegerField(default=0)),
                ('pending_at', models.DateTimeField()),
            ],
        ),
        migrations.RemoveIndex(
            model_name='transfer',
            name='transfer_of_organization',
        ),
        migrations.AddField(
            model_name='transfer',
            name='sequence',
            field=models.BigIntegerField(db_default=models.Func(models.Value('budgets_transfer_sequence'), function='nextval', output_field=models.BigIntegerField()), editable=False),
        ),
        migrations.AddIndex(
            model_name='transfer',
            index=models.Index(fields=['organization', 'sequence'], name='transfer_by_sequence'),
        ),
        migrations.AddField(
            model_name='journalseal',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddConstraint(
            model_name='sealhorizon',
            constraint=models.CheckConstraint(condition=models.Q(('id', 1)), name='horizon_one_row'),
        ),
        migrations.AddConstraint(
            model_name='sealhorizon',
            constraint=models.CheckConstraint(condition=models.Q(('sealable__lte', models.F('pending'))), name='horizon_in_order'),
        ),
        migrations.AddConstraint(
            model_name='journalseal',
            constraint=models.UniqueConstraint(fields=('organization', 'number'), name='seal_one_number'),
        ),
        migrations.AddConstraint(
            model_name='journalseal',
            constraint=models.UniqueConstraint(fields=('organization', 'first'), name='seal_one_begin'),
        ),
        migrations.AddConstraint(
            model_name='journalseal',
            constraint=models.CheckConstraint(condition=models.Q(('number__gte', 1), ('first__lte', models.F('last')), ('transfers__gte', 1), ('transfers__lte', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('last'), '-', models.F('first')), '+', models.Value(1)))), name='seal_covers_rows'),
        ),
        migrations.RunSQL(
            (HERE / "0005_journal_seals.sql").read_text(),
            (HERE / "0005_journal_seals_reverse.sql").read_text(),
        ),
    ]
