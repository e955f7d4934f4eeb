-- How long completed jobs took, by type, over 30 days.
select
    d.job_type,
    d.jobs,
    make_interval(secs => d.mean_seconds) as mean_duration,
    make_interval(secs => d.median_seconds) as median_duration,
    make_interval(secs => d.longest_seconds) as longest_duration
from jobs.average_durations as d
order by d.job_type;
