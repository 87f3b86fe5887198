from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
from django.db import migrations, models

HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0005_journal_seals'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.CreateModel(
            name='BudgetChange',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('kind', models.CharField(choices=[('limit', 'Limit'), ('increase', 'Increase')], max_length=8)),
                ('amount', models.BigIntegerField()),
                ('starts_at', models.DateTimeField()),
                ('ends_at', models.DateTimeField(blank=True, null=True)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('active', 'Active'), ('done', 'Done'), ('cancelled', 'Cancelled')], default='pending', max_length=9)),
                ('actor', models.CharField(max_length=200)),
                ('reason', models.CharField(max_length=500)),
                ('created_at', models.DateTimeField()),
                ('closed_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.AddField(
            model_name='budget',
            name='increase_amount',
            field=models.BigIntegerField(default=0),
        ),
        migrations.AddConstraint(
            model_name='budget',
            constraint=models.CheckConstraint(condition=models.Q(('increase_amount__gte', 0)), name='budget_increase_not_negative'),
        ),
        migrations.AddField(
            model_name='budgetchange',
            name='budget',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='changes', to='budgets.budget'),
        ),
        migrations.AddField(
            model_name='budgetchange',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddIndex(
            model_name='budgetchange',
            index=models.Index(condition=models.Q(('state', 'pending')), fields=['starts_at'], name='change_to_begin'),
        ),
        migrations.AddIndex(
            model_name='budgetchange',
            index=models.Index(condition=models.Q(('state', 'active')), fields=['ends_at'], name='change_to_end'),
        ),
        migrations.AddConstraint(
            model_name='budgetchange',
            constraint=models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='change_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='budgetchange',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('ends_at__isnull', True), ('kind', 'limit')), models.Q(('ends_at__gt', models.F('starts_at')), ('ends_at__isnull', False), ('kind', 'increase')), _connector='OR'), name='change_increase_ends'),
        ),
        migrations.AddConstraint(
            model_name='budgetchange',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('closed_at__isnull', True), ('state__in', ['pending', 'active'])), models.Q(('closed_at__isnull', False), ('state__in', ['done', 'cancelled'])), _connector='OR'), name='change_closed_has_instant'),
        ),
        migrations.AddConstraint(
            model_name='budgetchange',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('state', 'active'), _negated=True), ('kind', 'increase'), _connector='OR'), name='change_only_increases_last'),
        ),
        migrations.AddConstraint(
            model_name='budgetchange',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('actor', ''), _negated=True), models.Q(('reason', ''), _negated=True)), name='change_says_who_and_why'),
        ),
        migrations.RunSQL(
            (HERE / "0006_budget_changes.sql").read_text(),
            "ALTER TABLE budgets_budgetchange DROP CONSTRAINT change_budget_of_same_organization",
        ),
    ]
