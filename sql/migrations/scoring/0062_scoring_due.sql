-- Who is due for scoring as of a day, said once: active members who had joined by then, or had a visit by then.
-- Inlined where it is used, so that the visits are looked for only where the joining date does not tell.
create function scoring.is_due(status text, joined_date date, day date, visited boolean) returns boolean
language sql immutable parallel safe
return status = 'active' and (joined_date <= day or visited);
comment on function scoring.is_due(text, date, date, boolean) is
'Whether a member is scored as of a day; visited: whether it has a visit up to that day.';
