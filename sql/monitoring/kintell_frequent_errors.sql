-- The errors of rejected rows in the last week's imports, without values, most frequent first.
select e.job_id, kinds.kind, count(*) as rejected_rows, min(e.row_number) as first_row
from kintell.backfill_row_errors as e
inner join kintell.backfill_jobs as j on e.job_id = j.id
cross join lateral (
    select distinct split_part(part, ': ', 1) as kind
    from regexp_split_to_table(e.error_message, '; (?=[A-Z])') as part
) as kinds
where e.resolved_at is null and j.created_at > now() - interval '7 days'
group by e.job_id, kinds.kind
order by e.job_id, rejected_rows desc;
