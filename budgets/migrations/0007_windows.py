from pathlib import Path

import django.contrib.postgres.fields
import django.core.validators
import django.db.models.expressions
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0006_budget_changes'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.RemoveConstraint(
            model_name='balance',
            name='balance_amounts_not_negative',
        ),
        migrations.RemoveConstraint(
            model_name='balance',
            name='balance_limit_positive',
        ),
        migrations.RemoveConstraint(
            model_name='balance',
            name='balance_committed_within_cap',
        ),
        migrations.RemoveConstraint(
            model_name='budget',
            name='budget_window_complete',
        ),
        migrations.RemoveConstraint(
            model_name='transfer',
            name='transfer_kind_known',
        ),
        migrations.RemoveConstraint(
            model_name='transfer',
            name='transfer_of_lease_names_it',
        ),
        migrations.AddField(
            model_name='balance',
            name='carried_amount',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='balance',
            name='closed_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='balance',
            name='given_amount',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='balance',
            name='ring_bucket_ms',
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='balance',
            name='ring_newest',
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='balance',
            name='ring_overrun',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), blank=True, null=True, size=None),
        ),
        migrations.AddField(
            model_name='balance',
            name='ring_spent',
            field=django.contrib.postgres.fields.ArrayField(base_field=models.BigIntegerField(), blank=True, null=True, size=None),
        ),
        migrations.AddField(
            model_name='budget',
            name='anchor_month',
            field=models.SmallIntegerField(default=1, validators=[django.core.validators.MinValueValidator(1), django.core.validators.MaxValueValidator(12)]),
        ),
        migrations.AddField(
            model_name='budget',
            name='ends_at',
            field=models.DateTimeField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='budget',
            name='rolling_parts',
            field=models.SmallIntegerField(default=0),
        ),
        migrations.AddField(
            model_name='budget',
            name='rolling_s',
            field=models.IntegerField(blank=True, null=True),
        ),
        migrations.AddField(
            model_name='budget',
            name='rollover',
            field=models.CharField(choices=[('none', 'None'), ('capped', 'Capped'), ('all', 'All')], default='none', max_length=8),
        ),
        migrations.AddField(
            model_name='budget',
            name='rollover_amount',
            field=models.BigIntegerField(blank=True, null=True),
        ),
        migrations.AlterField(
            model_name='budget',
            name='window_kind',
            field=models.CharField(choices=[('lifetime', 'Lifetime'), ('calendar', 'Calendar'), ('until', 'Until'), ('rolling', 'Rolling')], max_length=8),
        ),
        migrations.AlterField(
            model_name='transfer',
            name='kind',
            field=models.CharField(choices=[('grant', 'grant'), ('settle', 'settle'), ('release', 'release'), ('expire', 'expire'), ('late_settle', 'late_settle'), ('late_release', 'late_release'), ('write_off', 'write_off'), ('overrun', 'overrun'), ('usage', 'usage'), ('correction', 'correction'), ('age', 'age'), ('age_overrun', 'age_overrun'), ('carry_out', 'carry_out'), ('carry_in', 'carry_in'), ('delegate', 'delegate'), ('come_home', 'come_home'), ('child_spent', 'child_spent'), ('limit', 'limit')], max_length=12),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('spent_amount__gte', 0), ('held_amount__gte', 0), ('suspense_amount__gte', 0), ('overrun_amount__gte', 0), ('given_amount__gte', 0), ('carried_amount__gte', 0)), name='balance_amounts_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('limit_amount__gt', 0), models.Q(('closed_at__isnull', False), ('limit_amount', 0)), _connector='OR'), name='balance_limit_positive'),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('hard', False), ('cap_amount__gte', django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(django.db.models.expressions.CombinedExpression(models.F('spent_amount'), '+', models.F('held_amount')), '+', models.F('suspense_amount')), '+', models.F('given_amount'))), _connector='OR'), name='balance_committed_within_cap'),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('carried_amount', 0), ('carried_amount__lt', models.F('limit_amount')), _connector='OR'), name='balance_carried_within_limit'),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ring_bucket_ms__isnull', True), ('ring_newest__isnull', True), ('ring_overrun__isnull', True), ('ring_spent__isnull', True)), models.Q(('ring_bucket_ms__gt', 0), ('ring_bucket_ms__isnull', False), ('ring_newest__isnull', False), ('ring_overrun__isnull', False), ('ring_spent__isnull', False), ('window_end__isnull', True)), _connector='OR'), name='balance_ring_complete'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ends_at__isnull', True), ('period', ''), ('rolling_s__isnull', True), ('window_kind', 'lifetime')), models.Q(('ends_at__isnull', True), ('period__in', ['minute', 'hour', 'day', 'week', 'month', 'quarter', 'year']), ('rolling_s__isnull', True), ('window_kind', 'calendar')), models.Q(('ends_at__isnull', False), ('period', ''), ('rolling_s__isnull', True), ('window_kind', 'until')), models.Q(('ends_at__isnull', True), ('period', ''), ('rolling_parts__gte', 1), ('rolling_parts__lte', 48), ('rolling_s__gte', 30), ('rolling_s__isnull', False), ('window_kind', 'rolling')), _connector='OR'), name='budget_window_complete'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('anchor_month__gte', 1), ('anchor_month__lte', 12)), name='budget_anchor_month_in_every_year'),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('rollover', 'none'), ('rollover_amount__isnull', True)), models.Q(('rollover', 'capped'), ('rollover_amount__gt', 0), ('rollover_amount__isnull', False), ('window_kind', 'calendar')), models.Q(('rollover', 'all'), ('rollover_amount__isnull', True), ('window_kind', 'calendar')), _connector='OR'), name='budget_rollover_of_calendar_windows'),
        ),
        migrations.AddConstraint(
            model_name='transfer',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['grant', 'settle', 'release', 'expire', 'late_settle', 'late_release', 'write_off', 'overrun', 'usage', 'correction', 'age', 'age_overrun', 'carry_out', 'carry_in', 'delegate', 'come_home', 'child_spent', 'limit'])), name='transfer_kind_known'),
        ),
        migrations.AddConstraint(
            model_name='transfer',
            constraint=models.CheckConstraint(condition=models.Q(('kind__in', ['overrun', 'usage', 'correction', 'age', 'age_overrun', 'carry_out', 'carry_in', 'delegate', 'come_home', 'child_spent', 'limit']), ('lease__isnull', False), _connector='OR'), name='transfer_of_lease_names_it'),
        ),
        migrations.RunSQL(
            (HERE / "0007_windows.sql").read_text(),
            (HERE / "0007_windows_reverse.sql").read_text(),
        ),
    ]
