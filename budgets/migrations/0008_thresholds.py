from pathlib import Path

import controlplane.identity.ids
import django.db.models.deletion
import django.db.models.expressions
from django.db import migrations, models


HERE = Path(__file__).parent


class Migration(migrations.Migration):

    dependencies = [
        ('budgets', '0007_windows'),
        ('identity', '0004_pulse'),
    ]

    operations = [
        migrations.CreateModel(
            name='ApprovalRequest',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('amount', models.BigIntegerField()),
                ('reason', models.CharField(max_length=500)),
                ('state', models.CharField(choices=[('pending', 'Pending'), ('approved', 'Approved'), ('denied', 'Denied'), ('expired', 'Expired')], default='pending', max_length=8)),
                ('asked_at', models.DateTimeField()),
                ('decided_at', models.DateTimeField(blank=True, null=True)),
                ('decided_by', models.CharField(blank=True, default='', max_length=200)),
                ('decision', models.CharField(blank=True, default='', max_length=500)),
            ],
        ),
        migrations.CreateModel(
            name='Notification',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('title', models.CharField(max_length=300)),
                ('body', models.CharField(blank=True, default='', max_length=1000)),
                ('created_at', models.DateTimeField()),
                ('seen_at', models.DateTimeField(blank=True, null=True)),
                ('seen_by', models.CharField(blank=True, default='', max_length=200)),
            ],
        ),
        migrations.CreateModel(
            name='ThresholdFiring',
            fields=[
                ('id', models.UUIDField(default=controlplane.identity.ids.new_id, editable=False, primary_key=True, serialize=False)),
                ('basis', models.CharField(choices=[('actual', 'actual'), ('forecast', 'forecast')], max_length=8)),
                ('percent', models.SmallIntegerField()),
                ('actions', models.JSONField()),
                ('used_amount', models.BigIntegerField()),
                ('limit_amount', models.BigIntegerField()),
                ('fired_at', models.DateTimeField()),
                ('lifted_at', models.DateTimeField(blank=True, null=True)),
                ('lifted_by', models.CharField(blank=True, default='', max_length=200)),
                ('rearmed_at', models.DateTimeField(blank=True, null=True)),
            ],
        ),
        migrations.RemoveConstraint(
            model_name='balance',
            name='balance_amounts_not_negative',
        ),
        migrations.RemoveConstraint(
            model_name='balance',
            name='balance_carried_within_limit',
        ),
        migrations.AddField(
            model_name='balance',
            name='approved_amount',
            field=models.BigIntegerField(db_default=0, default=0),
        ),
        migrations.AddField(
            model_name='budget',
            name='thresholds',
            field=models.JSONField(blank=True, default=list),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(('spent_amount__gte', 0), ('held_amount__gte', 0), ('suspense_amount__gte', 0), ('overrun_amount__gte', 0), ('given_amount__gte', 0), ('carried_amount__gte', 0), ('approved_amount__gte', 0)), name='balance_amounts_not_negative'),
        ),
        migrations.AddConstraint(
            model_name='balance',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('approved_amount', 0), ('carried_amount', 0)), ('limit_amount__gt', django.db.models.expressions.CombinedExpression(models.F('carried_amount'), '+', models.F('approved_amount'))), _connector='OR'), name='balance_carried_within_limit'),
        ),
        migrations.AddField(
            model_name='approvalrequest',
            name='balance',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='approvals', to='budgets.balance'),
        ),
        migrations.AddField(
            model_name='approvalrequest',
            name='budget',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='approvals', to='budgets.budget'),
        ),
        migrations.AddField(
            model_name='approvalrequest',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddField(
            model_name='notification',
            name='budget',
            field=models.ForeignKey(db_constraint=False, null=True, on_delete=django.db.models.deletion.PROTECT, related_name='+', to='budgets.budget'),
        ),
        migrations.AddField(
            model_name='notification',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddField(
            model_name='thresholdfiring',
            name='balance',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='firings', to='budgets.balance'),
        ),
        migrations.AddField(
            model_name='thresholdfiring',
            name='budget',
            field=models.ForeignKey(db_constraint=False, on_delete=django.db.models.deletion.PROTECT, related_name='firings', to='budgets.budget'),
        ),
        migrations.AddField(
            model_name='thresholdfiring',
            name='organization',
            field=models.ForeignKey(on_delete=django.db.models.deletion.PROTECT, related_name='+', to='identity.organization'),
        ),
        migrations.AddIndex(
            model_name='approvalrequest',
            index=models.Index(fields=['organization', '-asked_at'], name='approval_by_time'),
        ),
        migrations.AddConstraint(
            model_name='approvalrequest',
            constraint=models.UniqueConstraint(condition=models.Q(('state', 'pending')), fields=('balance',), name='approval_asked_once'),
        ),
        migrations.AddConstraint(
            model_name='approvalrequest',
            constraint=models.CheckConstraint(condition=models.Q(('amount__gt', 0)), name='approval_amount_positive'),
        ),
        migrations.AddConstraint(
            model_name='approvalrequest',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('decided_at__isnull', True), ('decided_by', ''), ('state', 'pending')), models.Q(('decided_at__isnull', False), ('state__in', ['approved', 'denied', 'expired']), models.Q(('decided_by', ''), _negated=True)), _connector='OR'), name='approval_decided_by_somebody'),
        ),
        migrations.AddIndex(
            model_name='notification',
            index=models.Index(fields=['organization', '-created_at'], name='notification_by_time'),
        ),
        migrations.AddConstraint(
            model_name='notification',
            constraint=models.CheckConstraint(condition=models.Q(('title', ''), _negated=True), name='notification_says_something'),
        ),
        migrations.AddConstraint(
            model_name='notification',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('seen_at__isnull', True), ('seen_by', '')), models.Q(('seen_at__isnull', False), models.Q(('seen_by', ''), _negated=True)), _connector='OR'), name='notification_seen_by_somebody'),
        ),
        migrations.AddIndex(
            model_name='thresholdfiring',
            index=models.Index(condition=models.Q(('rearmed_at__isnull', True)), fields=['organization', '-fired_at'], name='firing_that_holds'),
        ),
        migrations.AddConstraint(
            model_name='thresholdfiring',
            constraint=models.UniqueConstraint(condition=models.Q(('rearmed_at__isnull', True)), fields=('balance', 'basis', 'percent'), name='firing_once_until_armed'),
        ),
        migrations.AddConstraint(
            model_name='thresholdfiring',
            constraint=models.CheckConstraint(condition=models.Q(('percent__gte', 1), ('percent__lte', 1000), ('basis__in', ['actual', 'forecast'])), name='firing_of_a_threshold'),
        ),
        migrations.AddConstraint(
            model_name='thresholdfiring',
            constraint=models.CheckConstraint(condition=models.Q(models.Q(('lifted_at__isnull', True), ('lifted_by', '')), models.Q(('lifted_at__isnull', False), models.Q(('lifted_by', ''), _negated=True)), _connector='OR'), name='firing_lifted_by_somebody'),
        ),
        migrations.RunSQL(
            (HERE / "0008_thresholds.sql").read_text(),
            (HERE / "0008_thresholds_reverse.sql").read_text(),
        ),
    ]
